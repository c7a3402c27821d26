"""The plots' common ground: one that is asked to draw before its parts are there, or after, draws nothing."""

from __future__ import annotations

from typing import ClassVar

from textual import events, on
from textual.app import RenderResult
from textual_plot import PlotWidget


class Plot(PlotWidget):
    """A plot without pan, zoom and focus, drawn anew by `draw`; call `redraw` when there is something new.

    The application may be left, or the screen replaced, while a plot is put on it: Textual then gives it no parts, and
    `textual_plot` looks in vain for them (`NoMatches`).
    """

    MARGINS: ClassVar[tuple[int, int, int]] = (0, 2, 7)  # lines above and below, characters at the left

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, allow_pan_and_zoom=False)
        self.can_focus = False

    @on(events.Mount)
    def _begin(self, event: events.Mount) -> None:
        if not self.whole:
            event.prevent_default()  # PlotWidget's own, which comes next and looks for the parts
            return
        self.margin_top, self.margin_bottom, self.margin_left = self.MARGINS
        self.app.theme_changed_signal.subscribe(self, lambda _: self.redraw())
        self.call_later(self.redraw)

    def watch_margin_top(self) -> None:
        if self.whole:
            super().watch_margin_top()

    watch_margin_bottom = watch_margin_left = watch_margin_top  # all of them lay out the parts anew

    @property
    def whole(self) -> bool:
        """Whether all its parts are there."""
        return bool(self.query("#legend")) and bool(self.query("#margin-bottom"))

    def redraw(self) -> None:
        if self.whole:
            self.draw()

    def draw(self) -> None:
        """Clear the plot and draw."""
        raise NotImplementedError

    def render(self) -> RenderResult:
        return super().render() if self.whole else ""
