"""`j`: every job that is kept, with what can be done about it."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Static

from edgeq.errors import EdgeqError
from edgeq.jobs import Look, all_jobs, cancel, forget, look, pause, resume
from edgeq.jobs.job import LIVE

_EVERY_S = 1.0


class RunsScreen(ModalScreen[None]):
    """Work in progress and finished, also of other windows and of the last days."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,j,q", "dismiss", "Close", key_display="esc"),
        Binding("p", "pause", "Pause/resume"),
        Binding("c", "cancel", "Cancel"),
        Binding("delete,d", "forget", "Take off the list", key_display="d"),
    ]

    def compose(self) -> ComposeResult:
        with Vertical(id="runs"):
            yield Static("Runs", classes="title")
            yield DataTable(cursor_type="row", zebra_stripes=False)
            yield Static("", id="run-said", markup=False)
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        table = self._table
        for name in ("what", "state", "done", "now"):
            table.add_column(name, key=name)
        self._update()
        self.set_interval(_EVERY_S, self._update)

    @property
    def _table(self) -> DataTable[str]:
        return self.query_one(DataTable)

    def _update(self) -> None:
        looks = [look(job) for job in reversed(all_jobs())]
        table = self._table
        if [str(k.value) for k in table.rows] != [seen.job.id for seen in looks]:
            at = table.cursor_row
            table.clear()
            for seen in looks:
                table.add_row(*_cells(seen), key=seen.job.id)
            table.move_cursor(row=min(at, max(0, len(looks) - 1)))
        for seen in looks:
            for name, cell in zip(("what", "state", "done", "now"), _cells(seen), strict=True):
                table.update_cell(seen.job.id, name, cell, update_width=True)
        self._said("" if looks else "Nothing yet: runs that you begin are listed here.")

    def _said(self, line: str) -> None:
        self.query_one("#run-said", Static).update(line)

    def _chosen(self) -> Look | None:
        table = self._table
        if not table.row_count:
            return None
        job_id = str(table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value)
        return next((look(job) for job in all_jobs() if job.id == job_id), None)

    def action_pause(self) -> None:
        seen = self._chosen()
        if seen is None:
            return
        try:
            (pause if seen.state == "running" else resume)(seen.job)
        except EdgeqError as error:
            self.notify(error.line, severity="warning")
        self._update()

    def action_cancel(self) -> None:
        seen = self._chosen()
        if seen is not None and seen.state in LIVE:
            self.run_worker(lambda: cancel(seen.job), thread=True)

    def action_forget(self) -> None:
        seen = self._chosen()
        if seen is None:
            return
        try:
            forget(seen.job)
        except EdgeqError as error:
            self.notify(error.line, severity="warning")
        self._update()


def _cells(seen: Look) -> tuple[str, str, str, str]:
    share = "" if seen.share is None else f"{seen.share:.0%}"
    now = seen.failure.what if seen.failure else seen.event.what if seen.event and seen.state in LIVE else ""
    return seen.job.title, seen.state, share, now
