"""What every step's screen has: the road above, a sentence on what to do, the body, errors where they happen, keys."""

from __future__ import annotations

from collections.abc import Callable
from inspect import isawaitable
from typing import TYPE_CHECKING, ClassVar, TypeVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.events import DescendantBlur, DescendantFocus
from textual.screen import Screen
from textual.widgets import Input, Static

from edgeq.errors import EdgeqError
from edgeq.journey import Journey, Step
from edgeq.tui.hints import in_app
from edgeq.tui.messages import Failed, GoTo
from edgeq.tui.widgets.key_bar import KeyBar
from edgeq.tui.widgets.stepbar import TITLES, StepBar

if TYPE_CHECKING:
    from edgeq.jobs import Job
    from edgeq.tui.app import EdgeqApp
    from edgeq.tui.road import Road

T = TypeVar("T")

# For a step with fields that are no more than options: letters are text in them, and this leads back to the keys.
LEAVE_FIELD = Binding("escape", "leave_field", "Keys", key_display="esc", tooltip="Leave the field for the keys")


class StepScreen(Screen[None]):
    """A step of the road.

    A subclass gives `STEP`, `body` and what `enter` does each time that the screen is shown. `say` is the sentence
    under the road, `think` runs what blocks in a thread and hands its result to a method of the screen's.
    """

    STEP: ClassVar[Step]
    HELP: ClassVar[str] = ""  # as `prose` reads it; what the help screen says of this step
    _sentence = ""

    def compose(self) -> ComposeResult:
        yield StepBar(self.journey, self.STEP)
        yield Static("", id="guide", markup=False)
        lacking = self.journey.lacks(self.STEP)
        with Vertical(id="body"):
            if lacking is None:
                yield from self.body()
        yield Static("", id="problem", markup=False)
        yield KeyBar()

    def body(self) -> ComposeResult:
        """The step's own widgets."""
        raise NotImplementedError

    def enter(self) -> None:
        """The screen is shown, and the step can be taken."""

    @property
    def road(self) -> Road:
        return self._edgeq.road

    @property
    def journey(self) -> Journey:
        return self.road.journey

    @property
    def _edgeq(self) -> EdgeqApp:
        from edgeq.tui.app import EdgeqApp

        assert isinstance(self.app, EdgeqApp)
        return self.app

    def on_mount(self) -> None:
        if not self.is_attached:  # the application was left meanwhile, and nothing is on the screen
            return
        lacking = self.journey.lacks(self.STEP)
        if lacking is not None:
            number = list(TITLES).index(lacking) + 1
            self.say(f"First comes {TITLES[lacking]}: press {number}.")
            return
        self.enter()

    def say(self, sentence: str) -> None:
        """What to do next, in one sentence."""
        self._sentence = sentence
        self._tell()

    @on(DescendantFocus)
    @on(DescendantBlur)
    def _tell(self) -> None:
        first = "Enter leaves the field. " if self.in_field else ""
        self.query_one("#guide", Static).update(f"{first}{self._sentence}")

    @property
    def in_field(self) -> bool:
        """Whether letters go to a field that `LEAVE_FIELD` leads out of."""
        return isinstance(self.focused, Input) and LEAVE_FIELD in self.BINDINGS

    @on(Input.Submitted)
    def action_leave_field(self) -> None:
        if self.in_field:
            self.set_focus(None)

    def problem(self, what: str, hint: str = "") -> None:
        """Show what went wrong and the way out, in the application's words; an empty one clears it."""
        place = self.query_one("#problem", Static)
        place.update(f"{in_app(what)}{f'. {in_app(hint)}' if hint else ''}" if what else "")
        place.set_class(bool(what), "shown")

    def on_failed(self, message: Failed) -> None:
        message.stop()
        self.problem(message.what, message.hint)

    def become(self, journey: Journey) -> None:
        """Keep a choice; the road above shows it."""
        try:
            self.road.become(journey)
        except EdgeqError as error:
            self.problem(error.what, error.hint or "")
        self.query_one(StepBar).show(self.journey)

    def go(self, step: Step) -> None:
        self.post_message(GoTo(step))

    def act_on(self, job: Job | None, name: str) -> None:
        """`pause`, `resume` or `cancel` a job, and let the screen's panel look at it."""
        from edgeq import jobs
        from edgeq.tui.widgets.job_panel import JobPanel

        if job is not None:
            self.think(lambda: getattr(jobs, name)(job), lambda _: self.query_one(JobPanel).watch_job(job), "act")

    def think(self, work: Callable[[], T], then: Callable[[T], object], group: str = "think") -> None:
        """Run `work` in a thread and `then` with its result here; a later call of the group supersedes an earlier one.

        `then` may be a coroutine function. What `work` raises is shown as a problem.
        """

        def run() -> None:
            from textual.worker import get_current_worker

            worker = get_current_worker()
            try:
                found = work()
            except EdgeqError as error:
                if not worker.is_cancelled:
                    place = f" ({error.where})" if error.where else ""
                    self.app.call_from_thread(self.problem, f"{error.what}{place}", error.hint or "")
                return
            except Exception as error:  # a fault of edgeq's: said, and the application goes on
                if not worker.is_cancelled:
                    what = f"unexpected {type(error).__name__}: {error}"
                    self.app.call_from_thread(self.problem, what, "Please report it")
                return
            if not worker.is_cancelled:
                self.app.call_from_thread(self._found, then, found)

        self.run_worker(run, thread=True, exclusive=True, group=group, exit_on_error=False)

    def _found(self, then: Callable[[T], object], found: T) -> None:
        async def give() -> None:
            if self.is_attached and self.app.is_running:  # else it was left meanwhile
                answer = then(found)
                if isawaitable(answer):
                    await answer

        self.call_later(give)  # an error in it is the application's, not the thread's to swallow
