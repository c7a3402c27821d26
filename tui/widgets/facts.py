"""Rows of a name and what is said of it, aligned; long ones are folded."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text
from textual.widgets import Static


class Facts(Static):
    """`show` replaces the rows."""

    def show(self, rows: Iterable[tuple[str, str]]) -> None:
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for name, text in rows:
            table.add_row(Text(name, "dim"), Text(text))
        self.update(table)
