"""A model on the device at a glance: what it takes at 4, 8 and 16 bits, whether it fits, how fast it can be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text
from textual.widgets import Static

if TYPE_CHECKING:
    from edgeq.plan.glance import Glance

_HEADS = ("bits", "weights", "", "at most")


class ModelGlance(Static):
    """`show` replaces what is shown."""

    def waiting(self, title: str) -> None:
        self.update(Group(Text(title, "bold"), Text("Reading it ...", "dim")))

    def failed(self, title: str, what: str, hint: str) -> None:
        self.update(Group(Text(title, "bold"), Text(), Text(f"! {what}"), Text(hint)))

    def show(self, title: str, seen: Glance, where: str) -> None:
        """Args:
        where: in words, where its weights are.
        """
        from edgeq.plan.glance import facts, rows, sentence

        widths = Table.grid(padding=(0, 2, 0, 0))
        for i, _ in enumerate(_HEADS):
            widths.add_column(no_wrap=True, justify="left" if i == 2 else "right")
        widths.add_row(*(Text(head, "dim") for head in _HEADS))
        for row in rows(seen):
            widths.add_row(*(Text(cell) for cell in row))
        said = Table.grid(padding=(0, 2, 0, 0))
        said.add_column(no_wrap=True)
        said.add_column(overflow="fold")
        for name, text in (*facts(seen), ("weights", where)):
            said.add_row(Text(name, "dim"), Text(text))
        notes = [Text(f"! {note}") for note in seen.spec.estimated]
        self.update(Group(Text(title, "bold"), Text(sentence(seen)), Text(), widths, Text(), said, *notes))
