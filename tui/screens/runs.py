"""`j`: every job that is kept, of all windows, with what can be done about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import DataTable, Static

from edgeq.errors import EdgeqError
from edgeq.jobs import Look, all_jobs, cancel, forget, look, pause, resume, words
from edgeq.jobs.job import LIVE
from edgeq.tui.hints import in_app
from edgeq.tui.messages import GoTo
from edgeq.tui.widgets.key_bar import KeyBar

if TYPE_CHECKING:
    from edgeq.journey import Journey, Step

_EVERY_S = 1.0
_WIDTHS = {"state": 11, "done": 4, "worked": 7, "left": 7}
_TITLE = "what"  # the last column, with what room is left: it may be cut
_COLUMNS = (*_WIDTHS, _TITLE)
_STEPS: dict[str, Step] = {
    "profile": "device",
    "quantize": "quantize",
    "export": "export",
    "bench": "bench",
    "compare": "bench",
}


class RunsScreen(ModalScreen[None]):
    """Work in progress and finished, also of other windows and of the last days."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,j,q", "dismiss", "Close", key_display="esc"),
        Binding("enter", "open", "Go there", key_display="⏎", priority=True),
        Binding("p", "pause", "Pause"),
        Binding("c", "cancel", "Cancel"),
        Binding("l", "log", "Log"),
        Binding("delete,d", "forget", "Remove", key_display="d"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._looks: list[Look] = []
        self._looking = False

    def compose(self) -> ComposeResult:
        with Vertical(id="runs") as box:
            box.border_title = "Runs of all windows"
            yield DataTable(cursor_type="row", zebra_stripes=False)
            yield Static("", id="run-now", markup=False)
            with VerticalScroll(id="run-log", can_focus=False):
                yield Static("", id="run-trace", markup=False)
        yield KeyBar()

    def on_mount(self) -> None:
        if not self.is_attached:  # the application was left meanwhile, and nothing is on the screen
            return
        for name, width in _WIDTHS.items():
            self._table.add_column(name, key=name, width=width)
        self._table.add_column(_TITLE, key=_TITLE)
        self.query_one("#run-log").display = False
        self._look()
        self.set_interval(_EVERY_S, self._look)

    @property
    def _table(self) -> DataTable[str | Text]:
        return self.query_one(DataTable)

    def _look(self) -> None:
        """Look at all of them in a thread: a window must not wait for a disk."""
        if not self._looking:
            self._looking = True
            self.run_worker(self._read, thread=True, group="look", exit_on_error=False)

    def _read(self) -> None:
        looks = [look(job) for job in reversed(all_jobs())]
        self.app.call_from_thread(self.call_later, self._show, looks)

    def _show(self, looks: list[Look]) -> None:
        self._looks, self._looking = looks, False
        table = self._table
        if [str(k.value) for k in table.rows] != [seen.job.id for seen in looks]:
            at = table.cursor_row
            table.clear()
            for seen in looks:
                table.add_row(*self._cells(seen), key=seen.job.id)
            table.move_cursor(row=min(at, max(0, len(looks) - 1)))
        for seen in looks:
            for name, cell in zip(_COLUMNS, self._cells(seen), strict=True):
                table.update_cell(seen.job.id, name, cell, update_width=True)
        table.display = bool(looks)
        self.refresh_bindings()
        self._tell()

    def on_resize(self) -> None:
        if self._looks:
            self.call_after_refresh(self._show, self._looks)

    def _cells(self, seen: Look) -> list[str | Text]:
        """The title, which is told whole below, is cut to the room there is, and says so."""
        title, pads = Text(seen.job.title, no_wrap=True), 2 * self._table.cell_padding
        room = self._table.scrollable_content_region.width - sum(w + pads for w in _WIDTHS.values()) - pads
        title.truncate(max(1, room), overflow="ellipsis")
        return [seen.state, words.done(seen), words.worked(seen), words.left(seen), title]

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return bool(self._looks) if action in ("open", "pause", "cancel", "log", "forget") else True

    def on_data_table_row_highlighted(self) -> None:
        self.query_one("#run-log").display = False
        self._tell()

    def _tell(self) -> None:
        seen = self._chosen()
        said = "Nothing yet. What you measure, quantize and export is listed here."
        if seen is not None:
            hint = seen.failure.hint if seen.failure is not None else None
            said = "\n".join(
                (seen.job.title, ". ".join(part for part in (in_app(words.now(seen)), in_app(hint or "")) if part))
            ).rstrip()
        self.query_one("#run-now", Static).update(said)

    def _chosen(self) -> Look | None:
        at = self._table.cursor_row
        return self._looks[at] if 0 <= at < len(self._looks) else None

    def action_open(self) -> None:
        """Go to the job's step, in the journey that it belongs to."""
        from edgeq.tui.app import EdgeqApp
        from edgeq.tui.road import Road

        seen = self._chosen()
        if seen is None or not isinstance(self.app, EdgeqApp):
            return
        here = self.app.road.journey
        journey = here if seen.job.kind == "profile" else _journey_of(seen.job.id, here)
        if journey is None:
            self.notify("No journey is kept that this run belongs to", severity="warning")
            return
        if journey.id != here.id:
            self.app.road = Road(journey)
        self.app.post_message(GoTo(_STEPS[seen.job.kind]))

    def action_log(self) -> None:
        """Show what the process printed, and the trace of a fault."""
        from edgeq.jobs.shelf import log_of

        seen, place = self._chosen(), self.query_one("#run-log")
        place.display = not place.display
        if seen is not None and place.display:
            trace = seen.failure.trace if seen.failure is not None else ""
            said = "\n".join(part for part in (trace, log_of(seen.job)) if part)
            self.query_one("#run-trace", Static).update(said or "Nothing was printed.")

    def action_pause(self) -> None:
        seen = self._chosen()
        if seen is not None:
            self._act((pause if seen.state == "running" else resume), seen)

    def action_cancel(self) -> None:
        seen = self._chosen()
        if seen is not None and seen.state in LIVE:
            self._act(cancel, seen)

    def action_forget(self) -> None:
        seen = self._chosen()
        if seen is not None:
            self._act(forget, seen)

    def _act(self, act: object, seen: Look) -> None:
        """Do it in a thread, and look again; what stands against it is told."""

        def run() -> None:
            assert callable(act)
            try:
                act(seen.job)
            except EdgeqError as error:
                self.app.call_from_thread(self.notify, error.line, severity="warning")
            self.app.call_from_thread(self._look)

        self.run_worker(run, thread=True, group="act")


def _journey_of(job_id: str, present: Journey) -> Journey | None:
    from edgeq.journey import journeys

    return next((j for j in (present, *journeys()) if job_id in j.jobs.values()), None)
