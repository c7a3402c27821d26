"""A job as it goes: how much of it is done, how long it takes yet, what it takes of memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import ProgressBar, Static

from edgeq.jobs import words

if TYPE_CHECKING:
    from edgeq.jobs import Job, Look

EVERY_S = 0.5
Say = Callable[["Look"], list[str]]


class JobPanel(Vertical):
    """Looks at one job, twice a second and in a thread, and says what it sees.

    `watch` gives it the job. Each look is posted as `Seen`, the last one when the job is no longer at work.
    """

    class Seen(Message):
        """How the job stands now."""

        def __init__(self, look: Look) -> None:
            super().__init__()
            self.look = look

    def __init__(self, more: Say = lambda _: [], *, id: str | None = None) -> None:
        """Args:
        more: what else there is to say of a look, parts of a line.
        """
        super().__init__(id=id)
        self._more = more
        self._job: Job | None = None
        self._looking = False

    def compose(self) -> ComposeResult:
        yield ProgressBar(total=1.0, show_eta=False, show_percentage=False)
        yield Static("", classes="job-line", markup=False)
        yield Static("", classes="job-now dim", markup=False)

    def on_mount(self) -> None:
        self.set_interval(EVERY_S, self._poll)

    def watch_job(self, job: Job | None) -> None:
        """Look at this one from now on; None: at nothing."""
        self._job = job
        self._poll()

    def _poll(self) -> None:
        if self._job is None or self._looking:
            return
        self._looking = True
        job = self._job
        self.run_worker(lambda: self._look(job), thread=True, group="look", exit_on_error=False)

    def _look(self, job: Job) -> None:
        from edgeq.jobs import look

        seen = look(job)
        self.app.call_from_thread(self.call_later, self._show, seen)

    def _show(self, seen: Look) -> None:
        from edgeq.jobs.job import LIVE

        self._looking = False
        if self._job is None or seen.job.id != self._job.id or not self.is_attached:
            return
        if seen.state not in LIVE:
            self._job = None
        self.query_one(ProgressBar).update(progress=min(1.0, seen.share or 0.0))
        self.query_one(".job-line", Static).update(_line(*_parts(seen)))
        self.query_one(".job-now", Static).update(_line(words.now(seen), *self._more(seen)))
        self.post_message(self.Seen(seen))


def _parts(seen: Look) -> tuple[str, str, str]:
    left, worked = words.left(seen), words.worked(seen)
    return words.done(seen), worked and f"{worked} worked", left and f"{left} left"


def _line(*parts: str) -> str:
    return "   ".join(part for part in parts if part)
