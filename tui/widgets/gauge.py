"""A speed on a scale: how far the bar goes is said above it, and what it is held against below it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text
from textual.widgets import Static

FULL, REST = "█", "░"
PARTS = "▏▎▍▌▋▊▉"  # eighths of a cell
WAITING = "waiting for the first tokens ..."
ROOM = 1.08  # of the scale beyond the highest mark


class Gauge(Static):
    """Four lines: `43.1 now ▼`, the bar, and marks with their names, `▲ promised 40.2`."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._now: float | None = None
        self._marks: tuple[tuple[str, float], ...] = ()

    def show(self, now: float | None, marks: Sequence[tuple[str, float | None]]) -> None:
        """Args:
        now: None: not known yet.
        marks: name and place of each; those without a place are left out.
        """
        self._now, self._marks = now, tuple((name, at) for name, at in marks if at)
        self.refresh()

    def render(self) -> Text:
        return gauge(self.content_size.width, self._now, self._marks)


def gauge(width: int, now: float | None, marks: Sequence[tuple[str, float]]) -> Text:
    """The lines, each at most `width` characters."""
    top = max([now or 0.0, *(at for _, at in marks)], default=0.0) * ROOM
    if width < 1 or top <= 0:
        return Text(WAITING)
    scale = width / top
    length = (now or 0.0) * scale
    text = Text(no_wrap=True, overflow="crop")
    text.append(WAITING if now is None else _label(f"{now:,.1f} now", int(length), width, "▼"))
    text.append("\n" + _bar(length, width))
    lines: list[str] = []
    for name, at in marks:
        label = _label(f"{name} {at:,.1f}", int(at * scale), width, "▲")
        for i, line in enumerate(lines):
            if (both := _over(line, label)) is not None:
                lines[i] = both
                break
        else:
            lines.append(label)
    for line in lines:
        text.append("\n" + line)
    return text


def _bar(length: float, width: int) -> str:
    whole = min(width, int(length))
    part = int((length - whole) * 8)
    bar = FULL * whole + (PARTS[part - 1] if part and whole < width else "")
    return bar + REST * (width - len(bar))


def _label(words: str, at: int, width: int, mark: str) -> str:
    """The words beside their mark, on the side that has room."""
    at = max(0, min(width - 1, at))
    if at + 2 + len(words) <= width:
        return f"{' ' * at}{mark} {words}"
    return f"{words} {mark}".rjust(at + 1)


def _over(line: str, label: str) -> str | None:
    """Both in one line; None: they meet."""
    first, second = sorted((line, label), key=lambda s: len(s) - len(s.lstrip()))
    start = len(second) - len(second.lstrip())
    return first.ljust(start) + second[start:] if len(first) + 2 <= start else None
