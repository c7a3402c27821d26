"""How a candidate's memory and speed come about, over the plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.table import Table
from rich.text import Text
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
        with VerticalScroll(id="arithmetic") as panel:
            panel.border_title, panel.border_subtitle = f"{c.scheme.name} on {c.target}", "esc closes"
            yield Static("Memory", classes="title")
            yield Static("", id="memory")
            yield Static("Speed and quality", classes="title gap")
            yield Facts("", id="speed")

    def on_mount(self) -> None:
        from edgeq.cli.plan_words import arithmetic, speed_lines

        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, justify="right")
        table.add_column(overflow="fold")
        for part, amount, how in arithmetic(self._plan, self._candidate):
            table.add_row(Text(part, "dim"), Text(amount), Text(how))
        self.query_one("#memory", Static).update(table)
        self.query_one("#speed", Facts).show(speed_lines(self._plan, self._candidate))
