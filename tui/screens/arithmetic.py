"""How a candidate's memory and speed come about, over the plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from edgeq.tui.widgets.facts import Facts

if TYPE_CHECKING:
    from edgeq.plan.candidate import Candidate
    from edgeq.plan.plan import Plan


class ArithmeticScreen(ModalScreen[None]):
    """The figures of `edgeq plan`'s report, for any candidate."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,a,q,enter", "dismiss", "Close")]

    def __init__(self, plan: Plan, candidate: Candidate) -> None:
        super().__init__()
        self._plan, self._candidate = plan, candidate

    def compose(self) -> ComposeResult:
        c = self._candidate
        with VerticalScroll(id="arithmetic"):
            yield Static(f"{c.scheme.name} on {c.target}", classes="title", markup=False)
            yield Static("Memory", classes="title gap")
            yield Facts("", id="memory")
            yield Static("Speed and quality", classes="title gap")
            yield Facts("", id="speed")
            yield Static("Escape closes.", classes="dim gap")

    def on_mount(self) -> None:
        from edgeq.cli.plan_words import arithmetic, speed_lines

        memory = [(part, f"{amount:>8}  {how}") for part, amount, how in arithmetic(self._plan, self._candidate)]
        self.query_one("#memory", Facts).show(memory)
        self.query_one("#speed", Facts).show(speed_lines(self._plan, self._candidate))
