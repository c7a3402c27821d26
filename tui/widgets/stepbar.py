"""The road at the top of every screen: which steps are behind, where we are, what is ahead."""

from __future__ import annotations

from rich.text import Text
from textual import events
from textual.reactive import reactive
from textual.widgets import Static

from edgeq.journey import STEPS, Journey, Step
from edgeq.tui.messages import GoTo

TITLES: dict[Step, str] = {
    "device": "Device",
    "model": "Model",
    "plan": "Plan",
    "quantize": "Quantize",
    "export": "Export",
    "bench": "Benchmark",
    "chat": "Chat",
    "deliver": "Deliver",
}
_NARROW = 84  # columns that all titles take


def finished(journey: Journey, step: Step) -> bool:
    """The step has what the next one needs."""
    after: dict[Step, bool] = {
        "device": journey.model is not None,
        "model": journey.model is not None,
        "plan": journey.scheme is not None,
        "quantize": journey.checkpoint is not None,
        "export": bool(journey.artifacts),
        "bench": "bench" in journey.jobs,
        "chat": False,
        "deliver": False,
    }
    return after[step]


class StepBar(Static):
    """`1 Device  2 Model  [3 Plan] ...`; a click goes there."""

    current: reactive[Step] = reactive[Step]("device")

    def __init__(self, journey: Journey, current: Step) -> None:
        super().__init__(id="steps")
        self._journey = journey
        self._spans: list[tuple[int, int, Step]] = []
        self.set_reactive(StepBar.current, current)

    def show(self, journey: Journey) -> None:
        self._journey = journey
        self.refresh()

    def render(self) -> Text:
        narrow = self.size.width < _NARROW
        text, self._spans = Text(no_wrap=True), []
        for number, step in enumerate(STEPS, 1):
            here, done = step == self.current, finished(self._journey, step)
            start = text.cell_len
            mark = "✓" if done and not here else str(number)
            label = f" {mark} {TITLES[step]} " if here or not narrow else f" {mark} "
            style = "bold reverse" if here else "" if done or self._journey.lacks(step) is None else "dim"
            text.append(label, style)
            self._spans.append((start, text.cell_len, step))
            if step != STEPS[-1]:
                text.append("›", "dim")
        return text

    def on_click(self, event: events.Click) -> None:
        for start, end, step in self._spans:
            if start <= event.x < end:
                self.post_message(GoTo(step))
