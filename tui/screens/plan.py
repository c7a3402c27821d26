"""The step plan: the candidates, why each is in or out, what is asked; one of them is chosen."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.events import DescendantFocus, Resize
from textual.timer import Timer
from textual.widgets import Input, Static

from edgeq.errors import EdgeqError
from edgeq.journey import Step
from edgeq.tui.hints import error_line
from edgeq.tui.screens.step import StepScreen
from edgeq.tui.widgets.candidate_table import ADVISED, CHOSEN, NOT_YET, OUT, CandidateTable
from edgeq.tui.widgets.request_form import RequestForm

if TYPE_CHECKING:
    from edgeq.plan.candidate import Candidate
    from edgeq.plan.plan import Plan
    from edgeq.plan.request import Request
    from edgeq.tui.planning import Planning

LEGEND = f"{ADVISED} advised  {CHOSEN} chosen  {NOT_YET} not made by edgeq yet  {OUT} out"
ROOFLINE = "Roofline, GFLOP/s over FLOP/byte: ● this, ◆ its prompts"
TYPING = "Type what is asked: the plan follows. Press enter to go back to the table."
_VIEWS = ("details", "pareto", "roofline")
_NEED_A_PLAN = ("choose", "order", "ask", "arithmetic", "view", "out", "copy")
_VERY_WIDE = 160  # columns where the words get more of them
_WIDE, _TALL = 116, 32  # columns and lines that words, fields and plots take beside the table
_REST_S = 0.25  # after the last key before the plan is made anew


class PlanScreen(StepScreen):
    STEP: ClassVar[Step] = "plan"
    AUTO_FOCUS = ""
    CSS_PATH = "../styles/plan.tcss"
    HELP = """
A candidate is a **scheme**, how the weights are kept, **on** a runtime. **GB** is the memory it takes with the context
full; **tok/s** is the speed expected then, **at most** what the memory's bandwidth allows. **KL** is how far its words
stray from the original's: below 0.03 hardly anyone notices, above 0.3 it is not worth using.

Click a column's head to sort by it. Change what is asked on the right (or press `e`): the plan follows at once.
The **roofline** tells what holds the speed back: on its slope the memory, where it is flat the arithmetic.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "choose", "Choose", tooltip="Take this candidate, and go on to quantize"),
        Binding("o", "order", "Sort", tooltip="Sort by the next column"),
        Binding("e", "ask", "Ask", tooltip="Context, memory, speed, ... : what is asked of the plan"),
        Binding("a", "arithmetic", "Figures", tooltip="How its memory and speed come about"),
        Binding("v", "view", "View", tooltip="Words, Pareto front, roofline"),
        Binding("x", "out", "Out", show=False, tooltip="Show or hide what is out"),
        Binding("y", "copy", "Copy command", show=False, tooltip="The same plan as a command, to the clipboard"),
        Binding("escape", "table", "Back to the table", tooltip="Back from the fields to the table"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._planning: Planning | None = None
        self._asked: Request | None = None  # of the plan that is shown or on its way
        self._looked: Candidate | None = None
        self._rest: Timer | None = None
        self._view = 0

    def body(self) -> ComposeResult:
        yield Static("", id="asked", markup=False, classes="dim")
        with Horizontal(id="upper"):
            with Vertical(id="left"):
                yield CandidateTable(id="table")
                yield Static(LEGEND, id="legend", markup=False, classes="dim")
            with Vertical(id="side"):
                with VerticalScroll(id="details", can_focus=False):
                    yield Static("", id="name", markup=False)
                    yield Static("", id="why", markup=False)
                yield RequestForm(id="form")
        with Horizontal(id="lower"):
            with Vertical(id="pareto", classes="plot"):
                yield Static("", id="pareto-title", classes="dim", markup=False)
            with Vertical(id="roofline", classes="plot"):
                yield Static(ROOFLINE, classes="dim", markup=False)

    def on_resize(self, event: Resize) -> None:
        self.set_class(event.size.width < _WIDE or event.size.height < _TALL, "-narrow")
        self.set_class(event.size.width >= _VERY_WIDE, "-wide")

    def enter(self) -> None:
        from edgeq.tui.planning import planning_of

        self.say("Working out the plan ...")
        self.add_class("waiting")
        self.think(lambda: planning_of(self.road), self._ready, "plan")
        self.set_timer(0.1, self._unread)

    def _unread(self) -> None:
        if self._planning is None and self.query_one("#problem").has_class("shown"):
            self.say("Without the model or the device there is no plan: press 2 or 1.")

    def problem(self, what: str, hint: str = "") -> None:
        super().problem(what, hint)
        self._unread()

    async def _ready(self, planning: Planning) -> None:
        from edgeq.tui.widgets.plan_plots import ParetoPlot, RooflinePlot

        self._planning, self._asked = planning, planning.plan.request
        await self.query_one("#pareto").mount(ParetoPlot(id="front"))
        await self.query_one("#roofline").mount(RooflinePlot(id="roof"))
        self.remove_class("waiting")
        self.query_one(RequestForm).show(planning.plan.request, planning.targets)
        self._show()
        self.query_one(CandidateTable).focus()
        self.refresh_bindings()

    # What is shown.

    def _show(self) -> None:
        planning = self._planning
        if planning is None:
            return
        rows = planning.rows
        self.query_one("#asked", Static).update(planning.asked)
        self.query_one(CandidateTable).show(
            rows,
            [planning.mark(c, self.journey) for c in rows],
            planning.order,
            planning.reverse,
            planning.first(self.journey, self._looked),
        )
        if not rows:
            self._looked = None
            self._guide()

    def _guide(self) -> None:
        if self._planning is not None:
            typing = self._asking and bool(self._planning.plan.candidates)
            self.say(TYPING if typing else self._planning.guide(self._looked, self.journey))

    @on(CandidateTable.Looked)
    def _look(self, event: CandidateTable.Looked) -> None:
        from edgeq.tui.widgets.plan_plots import ParetoPlot, PlanPlot

        planning, c = self._planning, event.candidate
        if planning is None:
            return
        if c is not self._looked:
            self.problem("")
        self._looked = c
        self._guide()
        self.query_one("#pareto-title", Static).update(ParetoPlot.title(c))
        self.query_one("#name", Static).update(f"{c.scheme.name} on {c.target}: {planning.place(c)}")
        self.query_one("#why", Static).update(planning.verdict(c))
        self.query_one("#details").scroll_home(animate=False)
        for plot in self.query(PlanPlot):
            plot.show(planning.plan, c)

    @on(CandidateTable.Ordered)
    def _order_by(self, event: CandidateTable.Ordered) -> None:
        if self._planning is not None:
            again = event.order == self._planning.order
            self._planning = replace(self._planning, order=event.order, reverse=again and not self._planning.reverse)
            self._show()

    def action_order(self) -> None:
        if self._planning is not None:
            self._planning = replace(self._planning, order=self._planning.next_order(), reverse=False)
            self._show()

    def action_out(self) -> None:
        if self._planning is not None:
            self._planning = replace(self._planning, out=not self._planning.out)
            self._show()

    def action_view(self) -> None:
        self._view = (self._view + 1) % len(_VIEWS)
        for n, name in enumerate(_VIEWS):
            self.set_class(n == self._view, name)
        self.remove_class("asking")

    def action_arithmetic(self) -> None:
        from edgeq.tui.screens.arithmetic import ArithmeticScreen

        if self._planning is not None and self._looked is not None:
            self.app.push_screen(ArithmeticScreen(self._planning.plan, self._looked))

    def action_copy(self) -> None:
        from edgeq.plan.command import plan_command

        if self._planning is not None:
            here = self.journey
            self.app.copy_to_clipboard(plan_command(here.model or "", here.device, self._planning.plan.request))
            self.notify("The command is in the clipboard")

    # What is asked.

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return self._asking if action == "table" else self._planning is not None if action in _NEED_A_PLAN else True

    @property
    def _asking(self) -> bool:
        form = self.query(RequestForm)
        return bool(form) and self.focused is not None and form.first() in self.focused.ancestors

    @on(DescendantFocus)
    def _focused(self) -> None:
        self.refresh_bindings()
        self._guide()

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self.action_table()

    def action_ask(self) -> None:
        self.add_class("asking")
        self.query_one("#r-context", Input).focus()

    def action_table(self) -> None:
        self.remove_class("asking")
        self.query_one(CandidateTable).focus()

    @on(RequestForm.Changed)
    def _changed(self, event: RequestForm.Changed) -> None:
        from edgeq.plan.asking import changed

        form = self.query_one(RequestForm)
        if self._planning is None or self._asked is None:
            return
        if self._rest is not None:
            self._rest.stop()
        self.workers.cancel_group(self, "plan")  # its answer is of what was asked before
        try:
            self._asked = changed(self._asked, event.name, event.text)
        except EdgeqError as error:
            form.wrong(event.name, error_line(error))
            return
        form.wrong(None)
        self._rest = self.set_timer(_REST_S, self._plan_anew)

    def _plan_anew(self) -> None:
        asked = self._asked
        if self._planning is not None and asked != self._planning.plan.request:
            self.say("Working out the plan ...")
            self.think(lambda: self.road.plan(asked), self._planned, "plan")

    def _planned(self, plan: Plan) -> None:
        assert self._planning is not None
        if not self._planning.kept(self._looked, plan):
            self._looked = None
        self._planning = replace(self._planning, plan=plan)
        if self.journey.scheme is None:  # else what is asked goes with what is chosen
            self.become(replace(self.journey, request=plan.request))
        self._show()

    # What is chosen.

    @on(CandidateTable.Chosen)
    def _chosen(self, event: CandidateTable.Chosen) -> None:
        from edgeq.plan.obstacle import obstacle

        planning, c = self._planning, event.candidate
        if planning is None:
            return
        against = obstacle(planning.plan, c)
        if against is not None:
            self.problem(f"{against.head}: {against.reason}", against.hint)
            return
        self.become(self.journey.with_choice(planning.plan.request, c.scheme.name, c.target))
        self.go("quantize")

    def action_choose(self) -> None:
        table = self.query_one(CandidateTable)
        if table.looked_at is not None:
            table.post_message(CandidateTable.Chosen(table.looked_at))
