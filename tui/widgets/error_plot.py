"""The error of each layer as it comes, drawn while a model is quantized."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual_plot import HiResMode, PlotWidget

if TYPE_CHECKING:
    from edgeq.quantize.so_far import LayerError


class ErrorPlot(PlotWidget):
    """Mean and worst error of a layer's matrices, over the layers."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, allow_pan_and_zoom=False)
        self._shown: tuple[list[LayerError], int] | None = None
        self.can_focus = False

    def on_mount(self) -> None:
        super().on_mount()
        self.margin_top, self.margin_bottom, self.margin_left = 0, 2, 7
        self.app.theme_changed_signal.subscribe(self, lambda _: self._draw())
        self._draw()

    def show(self, errors: list[LayerError], layers: int) -> None:
        """Args:
        layers: of the model, which the axis is as long as.
        """
        if (errors, layers) != self._shown:
            self._shown = errors, layers
            self._draw()

    def _draw(self) -> None:
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
