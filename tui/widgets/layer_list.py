"""The layers that are done, the latest first: how far off they are, and where the method fell back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.widgets import DataTable

from edgeq.quantize.so_far import percent

if TYPE_CHECKING:
    from edgeq.quantize.so_far import MatrixDone

FELL_BACK = "!"


class LayerList(DataTable[str]):
    """A row a matrix; `!` marks one whose method did worse than rounding to nearest, which was stored instead."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, cursor_type="row")
        self._count = 0

    def on_mount(self) -> None:
        # Fixed widths: what they follow by themselves is measured late, and the table jumps.
        for name, width in (("layer", 5), ("matrix", 10), ("lost", 7), ("", 1)):
            self.add_column(name, width=width)

    def show(self, done: list[MatrixDone]) -> None:
        if len(done) == self._count:
            return
        self._count = len(done)
        self.clear()
        for m in reversed(done):
            layer = "" if m.layer is None else str(m.layer)
            self.add_row(layer, m.role, f"{percent(m.error):>7}", FELL_BACK if m.fallback else "")
