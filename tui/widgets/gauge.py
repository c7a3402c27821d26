"""A speed on a scale: how far the bar goes is said above it, and what it is held against below it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import Static

FULL, REST = "█", "░"
PARTS = "▏▎▍▌▋▊▉"  # eighths of a cell
WAITING = "waiting for the first tokens ..."
MOST = 3  # gauges beside each other
ROOM = 1.08  # of the scale beyond the highest mark


class Gauge(Static):
    """Four lines: `43.1 now ▼`, the bar, and marks with their names, `▲ promised 40.2`."""

    def __init__(self, word: str = "now", *, id: str | None = None) -> None:
        """Args:
        word: what is said of the speed that the bar shows.
        """
        super().__init__(id=id)
        self._word = word
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
        return gauge(self.content_size.width, self._now, self._marks, self._word)


class Gauges(Horizontal):
    """A gauge of each of several, beside each other where there is room for them; else the present one alone."""

    def __init__(self, word: str = "now", *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._word = word

    def compose(self) -> ComposeResult:
        for n in range(MOST):
            with Vertical(classes="dial"):
                yield Static("", classes="dim dial-name", markup=False)
                yield Gauge(self._word, id="gauge" if n == 0 else f"gauge-{n + 1}")

    def show(self, dials: Sequence[tuple[str, float | None, Sequence[tuple[str, float | None]]]], present: int) -> None:
        """Args:
        dials: name, speed and marks of each.
        present: the one at work; it comes first, and the others in their order.
        """
        first = [present] if present < len(dials) else []
        order = [*first, *(i for i in range(len(dials)) if i != present)]
        for n, place in enumerate(self.query(".dial")):
            place.set_class(n > 0 and n >= len(order), "unused")
            name, now, marks = dials[order[n]] if n < len(order) else ("", None, ())
            place.query_one(Static).update(name if len(dials) > 1 else "")
            place.query_one(Static).display = len(dials) > 1
            place.query_one(Gauge).show(now, marks)


def gauge(width: int, now: float | None, marks: Sequence[tuple[str, float]], word: str = "now") -> Text:
    """The lines, each at most `width` characters."""
    top = max([now or 0.0, *(at for _, at in marks)], default=0.0) * ROOM
    if width < 1 or top <= 0:
        return Text(WAITING)
    scale = width / top
    length = (now or 0.0) * scale
    text = Text(no_wrap=True, overflow="crop")
    text.append(WAITING if now is None else _label(f"{now:,.1f} {word}", int(length), width, "▼"))
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
