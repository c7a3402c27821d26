"""Rows of a name and what is said of it, aligned; long ones are folded."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group
from rich.table import Table
from rich.text import Text
from textual.widgets import Static


class Facts(Static):
    """`show` replaces the rows."""

    def show(self, rows: Iterable[tuple[str, str]]) -> None:
        self.update(_grid(rows))

    @classmethod
    def of(cls, rows: Iterable[tuple[str, str]], title: str) -> Facts:
        """Rows that stay, under a title."""
        return cls(Group(Text(title, "bold"), _grid(rows)))


def _grid(rows: Iterable[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows:
        table.add_row(Text(name, "dim"), Text(text))
    return table
