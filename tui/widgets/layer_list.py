"""The layers that are done, the latest first: how far off they are, and where the method fell back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.segment import Segment
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from edgeq.quantize.so_far import percent

if TYPE_CHECKING:
    from edgeq.quantize.so_far import MatrixDone

FELL_BACK = "!"


class LayerList(ScrollView, can_focus=True):
    """A line a matrix; `!` marks one whose method did worse than rounding to nearest, which was stored instead.

    Only the lines that are seen are drawn: a model has hundreds of matrices, and they come several a second.
    """

    COMPONENT_CLASSES = {"layer-list--head"}  # noqa: RUF012
    DEFAULT_CSS = """
    LayerList { background: $background; }
    LayerList .layer-list--head { background: $panel; color: $foreground; text-style: bold; }
    LayerList:focus .layer-list--head { color: $primary; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._done: list[MatrixDone] = []

    @property
    def row_count(self) -> int:
        return len(self._done)

    def show(self, done: list[MatrixDone]) -> None:
        if len(done) != len(self._done):
            self._done = done
            self.virtual_size = Size(len(_HEAD), 1 + len(done))
            self.refresh()

    def render_line(self, y: int) -> Strip:
        at = self.row_count - y - self.scroll_offset.y  # the head stays, however far it is scrolled
        style = self.get_component_rich_style("layer-list--head") if y == 0 else self.rich_style
        text = _HEAD if y == 0 else _line(self._done[at]) if at >= 0 else ""
        return Strip([Segment(text, style)]).adjust_cell_length(self.size.width, style)


def _row(layer: str, matrix: str, lost: str, mark: str) -> str:
    return f" {layer:5}  {matrix:10}  {lost:7}  {mark:1} "


_HEAD = _row("layer", "matrix", "lost", "")


def _line(m: MatrixDone) -> str:
    layer = "" if m.layer is None else str(m.layer)
    return _row(layer, m.role[:10], f"{percent(m.error):>7}", FELL_BACK if m.fallback else "")
