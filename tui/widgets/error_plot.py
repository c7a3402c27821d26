"""The error of each layer as it comes, drawn while a model is quantized."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual_plot import HiResMode

from edgeq.tui.widgets.plot import Plot

if TYPE_CHECKING:
    from edgeq.quantize.so_far import LayerError


class ErrorPlot(Plot):
    """Mean and worst error of a layer's matrices, over the layers."""

    MARGINS = (0, 2, 7)

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._shown: tuple[list[LayerError], int] | None = None

    def show(self, errors: list[LayerError], layers: int) -> None:
        """Args:
        layers: of the model, which the axis is as long as.
        """
        if (errors, layers) != self._shown:
            self._shown = errors, layers
            self.redraw()

    def draw(self) -> None:
        if self._shown is None:
            return
        errors, layers = self._shown
        self.clear()
        theme = self.app.theme_variables
        self.set_xlimits(0, max(1, layers - 1))
        self.set_ylimits(0.0)
        if errors:
            at = [e.layer for e in errors]
            self.plot(at, [e.mean for e in errors], theme["primary"], hires_mode=HiResMode.BRAILLE)
            self.scatter(at, [e.worst for e in errors], marker="•", marker_style=theme["accent"])
