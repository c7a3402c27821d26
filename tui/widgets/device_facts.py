"""A device's parts: what each is, how that is known, and what it means for running a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from textual.widgets import Static

if TYPE_CHECKING:
    from edgeq.estimate.meaning import Meaning

_WIDE = 110  # columns from which the meaning stands beside the part
_BAR = 20
_SHORT = 40


class DeviceFacts(Static):
    """`show` replaces what is shown; a bar stands with the memory."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._shown: tuple[Sequence[Meaning], float, Sequence[str]] | None = None

    def show(self, parts: Sequence[Meaning], used: float, notes: Sequence[str]) -> None:
        """Args:
        used: share of the memory that is not free, 0..1.
        """
        if (parts, used, notes) != self._shown:
            self._shown = parts, used, notes
            self._draw()

    def on_resize(self) -> None:
        self._draw()

    def _draw(self) -> None:
        if self._shown is None or not self.size.width:
            return
        parts, used, notes = self._shown
        wide = self.size.width >= _WIDE
        table = Table.grid(padding=(0, 2, 0, 0), expand=True)
        table.add_column(no_wrap=True)
        table.add_column(ratio=5)
        if wide:
            table.add_column(ratio=6)
        for part in parts:
            name, what, means = Text(part.name, "bold"), _what(part, used, wide), Text(part.means)
            if wide:
                table.add_row(name, what, means)
                table.add_row()
            else:
                table.add_row(name, Group(what, Text(part.means, "italic")) if part.means else what)
        self.update(Group(table, *(Text(f"! {note}") for note in notes)))


def _what(part: Meaning, used: float, wide: bool) -> RenderableType:
    """What it is and how that is known; where lines are short only a short word on it."""
    said = Text(part.value)
    if part.name == "Memory":
        said = Text.assemble(bar(used, _BAR), "\n" if wide else " ", said)
    if wide:
        return Group(said, Text(part.how, "dim")) if part.how else said
    return Text.assemble(said, (f"  {part.how}", "dim")) if 0 < len(part.how) <= _SHORT else said


def bar(share: float, width: int) -> str:
    """`███░░░░`: taken and free, told apart without colour."""
    full = round(share * width)
    return "█" * full + "░" * (width - full)
