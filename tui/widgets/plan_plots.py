"""A plan's plots: memory against loss, and the roofline, the candidate that is looked at marked in both."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

from textual_plot import HiResMode, PlotWidget
from textual_plot.axis_formatter import AxisFormatter

from edgeq.plan.points import pareto_front, roofline

if TYPE_CHECKING:
    from edgeq.plan.candidate import Candidate
    from edgeq.plan.plan import Plan

LEAST = 1e-3  # nats: what loses less is drawn here, for a logarithm has no zero
HERE, OTHER, PROMPT = "●", "·", "◆"


class LogAxis(AxisFormatter):
    """Ticks of an axis whose positions are logarithms: powers of ten, with more between where there is room.

    Args:
        room: how many labels find place.
        least: the value that stands for all that are smaller.
    """

    def __init__(self, room: Callable[[], int], least: float | None = None) -> None:
        self._room, self._least = room, least

    def get_ticks(self, min_: float, max_: float, max_ticks: int = 8) -> list[float]:
        found: list[float] = []
        most = max(2, min(max_ticks, self._room()))
        for steps in ((1,), (1, 3), (1, 2, 5)):
            powers = range(math.floor(min_), math.ceil(max_) + 1)
            ticks = [p + math.log10(s) for p in powers for s in steps]
            ticks = [t for t in ticks if min_ <= t <= max_]
            if not found or len(ticks) <= most:
                found = ticks
        return found[:: 1 + (len(found) - 1) // most] if found else []

    def get_labels_for_ticks(self, ticks: Sequence[float]) -> list[str]:
        return [self._label(10**t) for t in ticks]

    def _label(self, value: float) -> str:
        text = f"{value:,.0f}" if value >= 10 else f"{value:.4f}".rstrip("0").rstrip(".")
        return f"≤{text}" if self._least is not None and value <= self._least * 1.001 else text


class PlanPlot(PlotWidget):
    """Draws again when the plan, the candidate or the theme changes."""

    LEFT: ClassVar[int] = 7

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, allow_pan_and_zoom=False)
        self._shown: tuple[Plan, Candidate] | None = None
        self.can_focus = False

    def on_mount(self) -> None:
        super().on_mount()
        self.margin_top, self.margin_bottom, self.margin_left = 0, 2, self.LEFT
        self.app.theme_changed_signal.subscribe(self, lambda _: self._again())
        self._again()

    def show(self, plan: Plan, candidate: Candidate) -> None:
        if self._shown is None or self._shown[0] is not plan or self._shown[1] is not candidate:
            self._shown = plan, candidate
            self._again()

    def _rows(self) -> int:
        return (self.size.height - 3) // 2

    def _columns(self) -> int:
        return self.size.width // 8

    def _again(self) -> None:
        if self._shown is not None:
            self.clear()
            self.draw(*self._shown, self.app.theme_variables)

    def draw(self, plan: Plan, candidate: Candidate, theme: dict[str, str]) -> None:
        raise NotImplementedError


class ParetoPlot(PlanPlot):
    """Loss over memory: a line through those that no other beats in both; beside one that is out, an upright line at
    the memory there is."""

    @staticmethod
    def title(candidate: Candidate) -> str:
        line = "the line the best" if candidate.fits else "│ the memory there is"
        return f"Loss (KL) over GB: {HERE} this one, {line}"

    def draw(self, plan: Plan, candidate: Candidate, theme: dict[str, str]) -> None:
        self.set_y_formatter(LogAxis(self._rows, LEAST))
        fitting, front = plan.candidates, pareto_front(plan.candidates)
        shown = [*(fitting or plan.rejected), candidate]
        lowest, highest = LEAST, max(0.1, *(c.quality.kld for c in shown))
        self.set_ylimits(math.log10(lowest) - 0.1, math.log10(highest) + 0.1)
        self.set_xlimits(0.0, 1.05 * max(_gb(c) for c in shown))
        self.set_xlabel("GB")
        if front:
            self.plot([_gb(c) for c in front], [_loss(c) for c in front], theme["primary"], HiResMode.BRAILLE)
        self.scatter([_gb(c) for c in shown], [_loss(c) for c in shown], OTHER, theme["foreground"])
        if not candidate.fits:
            self.add_v_line(candidate.room / 1e9, theme["error"])
        self.scatter([_gb(candidate)], [_loss(candidate)], HERE, f"bold {theme['accent']}")


class RooflinePlot(PlanPlot):
    """Operations a second over operations a byte: what memory and arithmetic allow, and what is expected."""

    def draw(self, plan: Plan, candidate: Candidate, theme: dict[str, str]) -> None:
        found = roofline(plan, candidate)
        self.set_x_formatter(LogAxis(self._columns))
        self.set_y_formatter(LogAxis(self._rows))
        if found is None:
            self.set_xlabel("the memory's read bandwidth is not known")
            return
        self.set_xlabel("operations a byte")
        works = [*found.roof, *found.others, *([found.decode] if found.decode else [])]
        rates = [_giga(w.rate) for w in works]
        self.set_xlimits(_log(found.roof[0].intensity), _log(found.roof[-1].intensity))
        self.set_ylimits(min(rates) - 0.1, max(rates) + 0.2)
        roof = [_log(w.intensity) for w in found.roof], [_giga(w.rate) for w in found.roof]
        self.plot(*roof, theme["primary"], HiResMode.BRAILLE)
        if found.others:
            xs, ys = [_log(w.intensity) for w in found.others], [_giga(w.rate) for w in found.others]
            self.scatter(xs, ys, OTHER, theme["foreground"])
        if found.prompt:
            self.scatter([_log(found.prompt.intensity)], [_giga(found.prompt.rate)], PROMPT, theme["accent"])
        if found.decode:
            at = [_log(found.decode.intensity)], [_giga(found.decode.rate)]
            self.scatter(*at, HERE, f"bold {theme['accent']}")


def _gb(c: Candidate) -> float:
    return c.footprint.total / 1e9


def _loss(c: Candidate) -> float:
    return _log(max(LEAST, c.quality.kld))


def _log(value: float) -> float:
    return math.log10(value)


def _giga(rate: float) -> float:
    return _log(rate / 1e9)
