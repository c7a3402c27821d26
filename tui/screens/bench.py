"""The step benchmark: what will be measured; how fast it goes, live; what came of it beside what was promised."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import ContentSwitcher, OptionList, Static
from textual.widgets.option_list import Option

from edgeq.errors import EdgeqError
from edgeq.journey import Step
from edgeq.tui.hints import error_line
from edgeq.tui.screens.step import LEAVE_FIELD, StepScreen
from edgeq.tui.widgets.bench_live import BenchLive
from edgeq.tui.widgets.bench_result import BenchResult
from edgeq.tui.widgets.facts import Facts
from edgeq.tui.widgets.job_panel import JobPanel
from edgeq.tui.widgets.workload_form import WorkloadForm

if TYPE_CHECKING:
    from edgeq.jobs import Look
    from edgeq.tui.benching import Benching, Choice

State = Literal["thinking", "before", "unable", "work", "paused", "after"]
_KEYS: dict[str, tuple[State, ...]] = {
    "start": ("before",),
    "choose": ("before",),
    "copy": ("before",),
    "options": ("before",),
    "pause": ("paused",),
    "cancel": ("work", "paused"),
    "again": ("after",),
}


class BenchScreen(StepScreen):
    STEP: ClassVar[Step] = "bench"
    CSS_PATH = "../styles/bench.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide"), (160, "-very-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-short"), (32, "-tall")]  # noqa: RUF012
    HELP = """
A benchmark says how fast the model really is here. **Decode** is writing: tokens a second, a token being about three
quarters of a word. **Prefill** is reading the prompt. **Promised** is what the plan expected; the **ceiling** is what
the memory's speed allows, since each new token reads all of the weights once. Nothing goes above it.

The figures are the middle of several repetitions, with half their range after `±`. What else runs on the machine slows
it down: close it first. Several artifacts take turns, so that what disturbs one disturbs all. Results are kept, and the
next plan learns from them.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "start", "Measure", tooltip="Measure the artifacts that are marked"),
        Binding("space", "choose", "Mark", tooltip="Measure this one too, or leave it out"),
        Binding("o", "options", "Options", tooltip="Lengths of prompts, new tokens, repeats, threads"),
        Binding("y", "copy", "Copy", tooltip="The same as a command, to the clipboard"),
        Binding("p", "pause", "Resume", tooltip="Go on"),
        Binding("c", "cancel", "Cancel", tooltip="End it; nothing is kept of it"),
        Binding("a", "again", "Again", tooltip="Measure again, or others"),
        LEAVE_FIELD,
    ]

    def __init__(self) -> None:
        super().__init__()
        self._state: State = "thinking"
        self._benching: Benching | None = None
        self._last = ("", "")  # how the last run went wrong, until something else is done

    def body(self) -> ComposeResult:
        with ContentSwitcher(initial="thinking"):
            yield Static("Looking at the artifacts ...", id="thinking", classes="dim")
            with Horizontal(id="before"):
                with VerticalScroll(id="which", can_focus=False):
                    yield OptionList(id="artifacts", markup=False)
                    yield Static("", id="why", markup=False)
                    yield Facts("", id="will")
                    yield Static("", id="command", markup=False)
                yield WorkloadForm(id="form", can_focus=False)
            yield BenchLive(id="work")
            yield BenchResult(id="after")

    def enter(self) -> None:
        self.say("Looking at the artifacts ...")
        self.think(self._look, self._ready)

    def _look(self) -> Benching:
        from edgeq.tui.benching import benching_of  # in the thread: what it imports takes longer than a key may wait

        return benching_of(self.road)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "choose" and self._benching is not None and len(self._benching.choices) < 2:
            return False
        return self._state in _KEYS[action] if action in _KEYS else action != "leave_field" or self.in_field

    def _become(self, state: State) -> None:
        if state == self._state:
            return
        self._state = state
        shown = {"thinking": "thinking", "work": "work", "paused": "work", "after": "after"}.get(state, "before")
        self.query_one(ContentSwitcher).current = shown
        self.refresh_bindings()

    def _ready(self, benching: Benching) -> None:
        self._benching = benching
        if benching.job is not None:
            self._watch()
        elif (found := benching.comparison()) is not None:
            self._show(found)
        else:
            self._before()

    # Before: what will be measured.

    def _before(self) -> None:
        assert self._benching is not None
        listed = self.query_one("#artifacts", OptionList)
        at = listed.highlighted or 0
        listed.clear_options()
        for choice in self._benching.choices:
            listed.add_option(Option(choice.line(choice.path in self._benching.chosen), id=choice.path))
        listed.highlighted = min(at, len(self._benching.choices) - 1)
        self._become("before" if self._benching.able else "unable")
        self.query_one(WorkloadForm).show(self._benching.work)
        self.query_one(WorkloadForm).display = bool(self._benching.able)
        self._judge()
        listed.focus()

    def _judge(self) -> None:
        from edgeq.measure.bench_words import work_rows

        assert self._benching is not None
        benching = self._benching
        self.problem(*self._last)
        if not benching.able:
            self.say("Nothing here can be measured: see why below, or press 5 to export another.")
            self.query_one("#will", Facts).show([])
            return
        try:
            work, seconds = benching.fitted, benching.seconds
        except EdgeqError as error:
            self.problem(error.what, error.hint or "")
            return
        count = len(benching.chosen)
        rows = work_rows(work, count, seconds)
        if benching.elsewhere:
            rows.append(("where", f"on this machine, though the plan is for {benching.elsewhere}"))
        self.query_one("#will", Facts).show(rows)
        self.query_one("#command", Static).update(benching.command)
        what = "it" if count == 1 else "them side by side"
        self.say(f"Press s to measure {what}; best while nothing else runs.")

    @on(WorkloadForm.Changed)
    def _asked(self, event: WorkloadForm.Changed) -> None:
        form = self.query_one(WorkloadForm)
        if self._benching is None:
            return
        try:
            self._benching = self._benching.asked(event.name, event.text)
        except EdgeqError as error:
            form.wrong(event.name, error_line(error))
            return
        form.wrong(None)
        self._judge()

    def action_options(self) -> None:
        self.query_one(WorkloadForm).focus_first()

    @on(OptionList.OptionHighlighted, "#artifacts")
    def _looked_at(self, event: OptionList.OptionHighlighted) -> None:
        choice = self._choice(event.option_id)
        place, reason = self.query_one("#why", Static), "" if choice is None else choice.reason
        place.update(reason)
        place.display = bool(reason)

    @on(OptionList.OptionSelected, "#artifacts")
    def _picked(self) -> None:
        self.action_choose()

    def _choice(self, path: str | None) -> Choice | None:
        return None if self._benching is None else next((c for c in self._benching.choices if c.path == path), None)

    def action_choose(self) -> None:
        listed = self.query_one("#artifacts", OptionList)
        if self._benching is None or self._state != "before" or listed.highlighted is None:
            return
        self._benching = self._benching.toggled(str(listed.get_option_at_index(listed.highlighted).id))
        self._last = ("", "")
        for choice in self._benching.choices:
            listed.replace_option_prompt(choice.path, choice.line(choice.path in self._benching.chosen))
        self._judge()

    def action_copy(self) -> None:
        if self._benching is not None:
            self.app.copy_to_clipboard(self._benching.command)
            self.notify("The command is in the clipboard")

    def action_start(self) -> None:
        if self._benching is None or self._state != "before":
            return
        benching, self._last = self._benching, ("", "")
        self.problem("")
        self.think(benching.begin, self._begun, "begin")

    def _begun(self, benching: Benching) -> None:
        self._benching = benching
        assert benching.job is not None
        self.become(self.journey.with_job("bench", benching.job.id))
        self._watch()

    # During: how fast it goes.

    def _watch(self) -> None:
        assert self._benching is not None
        live = self.query_one(BenchLive)
        live.begin()
        # What was said before this window looked; from then on, what each look sees: reading more often would disturb.
        self.think(self._benching.speeds, live.behind, "behind")
        self.query_one(JobPanel).watch_job(self._benching.job)

    @on(JobPanel.Seen)
    def _seen(self, event: JobPanel.Seen) -> None:
        seen = event.look
        if self._benching is None:
            return
        if seen.state in ("running", "paused"):
            self._become("work" if seen.state == "running" else "paused")
            self._live(seen)
        elif seen.state == "done":
            self._done(seen.result)
        else:
            self._ended(seen)

    def _live(self, seen: Look) -> None:
        assert self._benching is not None
        if seen.state == "paused":
            self.say("Paused, and so no measurement: press c to end it, p to go on.")
        else:
            self.say("Measuring. Leave the machine alone; you may leave this screen: it goes on.")
        self.query_one(BenchLive).hear(seen, self._benching)

    def action_pause(self) -> None:
        self._act("resume")

    def action_cancel(self) -> None:
        self._act("cancel")

    def _act(self, name: str) -> None:
        self.act_on(self._benching.job if self._benching is not None else None, name)

    def _ended(self, seen: Look) -> None:
        from edgeq.jobs import words

        self._last = words.ended(seen, "Press s to begin again")
        self._before()

    # After: what came of it.

    def _done(self, result: Any) -> None:
        assert self._benching is not None
        try:
            found = self._benching.done(result).comparison(result)
            self._benching = self._benching.done(result)
        except EdgeqError as error:
            self._last = (error.what, "Press s to measure again")
            self._before()
            return
        if found is not None:
            self._show(found)

    def _show(self, found: Any) -> None:
        from edgeq.measure.bench_words import advice, ago, main_side

        self._become("after")
        self.query_one(BenchResult).show(found)
        self.query_one(BenchResult).focus()
        slow = ", slower than promised (→)" if advice(main_side(found).benchmark) else ""
        self.say(f"Measured {ago(found.date)}{slow}. Press n to chat, a to measure again.")

    def action_again(self) -> None:
        if self._benching is not None:
            self._last = ("", "")
            self._before()
