"""Speeds as they came, a column each, from zero: a wide swing looks wide, and a small one small."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text
from textual.widgets import Static

EIGHTHS = " ▁▂▃▄▅▆▇█"


class Speeds(Static):
    """The latest speeds, as many as there is room for; the latest at the right."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._values: tuple[float, ...] = ()

    def show(self, values: Sequence[float]) -> None:
        self._values = tuple(values)
        self.refresh()

    def render(self) -> Text:
        size = self.content_size
        return Text("\n".join(columns(self._values[-max(1, size.width) :], max(1, size.height))), no_wrap=True)


def columns(values: Sequence[float], height: int) -> list[str]:
    """The lines from the top; the highest value is as high as they are."""
    top = max(values, default=0.0)
    levels = [round(v / top * height * 8) if top > 0 else 0 for v in values]
    return ["".join(EIGHTHS[max(0, min(8, n - 8 * row))] for n in levels) for row in reversed(range(height))]
