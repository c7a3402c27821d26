"""The application without colours (NO_COLOR): Textual's filter, for every segment that a widget may draw."""

from __future__ import annotations

from typing import Any

from rich.segment import Segment
from textual.app import App
from textual.color import Color
from textual.filter import Monochrome


class Colourless(Monochrome):
    """Greys instead of colours. Textual's own fails on a segment without a style, such as a plot's empty cells."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        bare = [s for s in segments if s.style is None]
        if not bare:
            return super().apply(segments, background)
        out: list[Segment] = []
        for segment in segments:
            out += [segment] if segment.style is None else super().apply([segment], background)
        return out


def mend_monochrome(app: App[Any]) -> None:
    """Put `Colourless` where Textual has put its own filter."""
    filters = app._filters
    filters[:] = [Colourless() if type(f) is Monochrome else f for f in filters]
