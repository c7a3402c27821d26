"""The step export: the runtimes there are, which of them fit the checkpoint, and the proof that it came out right."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import ContentSwitcher, OptionList, Static
from textual.widgets.option_list import Option

from edgeq.journey import Step
from edgeq.tui.hints import in_app
from edgeq.tui.screens.step import LEAVE_FIELD, StepScreen
from edgeq.tui.widgets.export_form import ExportForm
from edgeq.tui.widgets.facts import Facts
from edgeq.tui.widgets.job_panel import JobPanel

if TYPE_CHECKING:
    from edgeq.jobs import Look
    from edgeq.tui.exporting import Exporting

State = Literal["thinking", "before", "refused", "exists", "work", "paused", "after"]
_KEYS: dict[str, tuple[State, ...]] = {
    "start": ("before",),
    "options": ("before", "exists"),
    "copy": ("before",),
    "pause": ("work", "paused"),
    "cancel": ("work", "paused"),
    "use": ("exists",),
    "rename": ("exists",),
    "replace": ("exists",),
    "again": ("after",),
}


PROOF = "It is written first, then proved: what it computes, or every number in it, is compared with the checkpoint."


class ExportScreen(StepScreen):
    STEP: ClassVar[Step] = "export"
    CSS_PATH = "../styles/export.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide"), (160, "-very-wide")]  # noqa: RUF012
    HELP = """
A checkpoint is no runtime's format. Export writes it for one; nothing is quantized again, and one checkpoint can be
exported as often as you like. What a format can't hold without loss is refused, with the reason.

Each export is **proved**: where edgeq has the runtime, its answers are compared with the checkpoint's (KL divergence:
0 is the same, 0.05 is close); where the file is for other tools, every number of it is read back and compared.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "start", "Export", tooltip="Export by the chosen way, and prove it"),
        Binding("o", "options", "Options", tooltip="What the exporter can be asked for, and the folder"),
        Binding("y", "copy", "Copy command", tooltip="The same as a command, to the clipboard"),
        Binding("p", "pause", "Pause/resume", tooltip="Stop for now, or go on"),
        Binding("c", "cancel", "Cancel", tooltip="End it"),
        Binding("u", "use", "Use it", tooltip="Go on with the artifact that is there"),
        Binding("w", "rename", "Other name", tooltip="Write beside it"),
        Binding("r", "replace", "Replace", tooltip="Replace it, once the new one is whole"),
        Binding("a", "again", "Another", tooltip="Export the same checkpoint for another runtime"),
        LEAVE_FIELD,
    ]

    def __init__(self) -> None:
        super().__init__()
        self._state: State = "thinking"
        self._exporting: Exporting | None = None
        self._last = ("", "")  # how the last run went wrong, until something else is chosen

    def body(self) -> ComposeResult:
        with ContentSwitcher(initial="thinking"):
            yield Static("Asking the exporters ...", id="thinking", classes="dim")
            with Horizontal(id="before"):
                with Vertical(id="ways"):
                    yield OptionList(id="list")
                    with VerticalScroll(id="facts", can_focus=False):
                        yield Static("The checkpoint", classes="title", markup=False)
                        yield Facts("", id="source")
                        yield Static("What lies in the folder", classes="title gap", markup=False, id="there-title")
                        yield Facts("", id="there")
                with VerticalScroll(id="how", can_focus=False):
                    yield Static("", id="why", markup=False)
                    yield ExportForm(id="form", can_focus=False)
                    yield Static("", id="command", markup=False)
            with Vertical(id="work"):
                yield JobPanel(id="job")
                yield Facts("", id="going")
                yield Static(PROOF, classes="dim", markup=False, id="proof")
            with Horizontal(id="after"):
                with VerticalScroll(id="came"):
                    yield Facts("", id="made")
                    yield Facts("", id="others")
                with VerticalScroll(id="files", can_focus=False):
                    yield Static("What lies in the folder", classes="title", markup=False)
                    yield Facts("", id="written")

    def enter(self) -> None:
        from edgeq.tui.exporting import exporting_of

        self.say("Asking the exporters what they can take ...")
        self.think(lambda: exporting_of(self.road), self._ready)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return self._state in _KEYS[action] if action in _KEYS else action != "leave_field" or self.in_field

    def _become(self, state: State) -> None:
        if state == self._state:
            return
        self._state = state
        shown = {"thinking": "thinking", "work": "work", "paused": "work", "after": "after"}.get(state, "before")
        self.query_one(ContentSwitcher).current = shown
        self.refresh_bindings()

    def _ready(self, exporting: Exporting) -> None:
        self._exporting = exporting
        if exporting.job is not None:
            self._watch()
        else:
            self._list()

    # Before: which ways there are.

    def _list(self) -> None:
        assert self._exporting is not None
        ways = self.query_one("#list", OptionList)
        ways.clear_options()
        for way in self._exporting.ways:
            mark, name = "✓" if way.fits else "✗", f"{way.name} (planned)" if way.planned else way.name
            ways.add_option(Option(f"{mark} {name:19} {way.about}", id=way.name))
        self.query_one("#source", Facts).show(self._exporting.source)
        ways.highlighted = [way.name for way in self._exporting.ways].index(self._exporting.to)
        self._become("before")
        self.query_one(OptionList).focus()

    @on(OptionList.OptionHighlighted, "#list")
    async def _looked_at(self, event: OptionList.OptionHighlighted) -> None:
        if self._exporting is None or event.option_id is None:
            return
        if event.option_id != self._exporting.to:
            self._exporting = self._exporting.chosen(event.option_id)
            self._last = ("", "")
        await self.query_one(ExportForm).show(self._exporting)
        self._judge()

    @on(OptionList.OptionSelected, "#list")
    def _picked(self) -> None:
        self.action_start()

    @on(ExportForm.Changed)
    def _changed(self, event: ExportForm.Changed) -> None:
        if self._exporting is None:
            return
        before, self._exporting = self._exporting, self._exporting.changed(event.name, event.value)
        if (before.options, before.out) != (self._exporting.options, self._exporting.out):
            self._last = ("", "")
            self.workers.cancel_group(self, "begin")
        self._judge()

    def _judge(self) -> None:
        """Whether the chosen way can be taken, and what stands there."""
        from edgeq.tui.exporting import IN_THE_WAY

        assert self._exporting is not None
        way, there = self._exporting.way, self._exporting.standing
        self.problem(*self._last)
        self.query_one("#command", Static).update(self._exporting.command if way.fits else "")
        self.query_one(ExportForm).display = way.fits
        why = self.query_one("#why", Static)
        why.update("" if way.fits else "\n- ".join(("It can't hold this checkpoint:", *map(in_app, way.refusals))))
        why.display = not way.fits
        if not way.fits:
            self._become("refused")
            self.say("Choose one marked ✓, or press 4 to quantize again as it asks.")
        elif there == "nothing":
            self._become("before")
            self.say(f"Press s to export to {way.name}; it is proved before it is handed over.")
        else:
            self._become("exists")
            self.say(IN_THE_WAY[there])
        self._show_files("#there", self._exporting.out)

    def action_options(self) -> None:
        self.query_one(ExportForm).focus_first()

    def action_copy(self) -> None:
        if self._exporting is not None:
            self.app.copy_to_clipboard(self._exporting.command)
            self.notify("The command is in the clipboard")

    def action_use(self) -> None:
        from edgeq.artifact import read_artifact
        from edgeq.measure.proof_words import artifact_rows

        if self._exporting is not None and self._exporting.standing in ("same", "unproved"):
            out = self._exporting.out
            self._keep(str(out))
            self.think(lambda: artifact_rows(read_artifact(out)), self._show_made)

    async def action_rename(self) -> None:
        if self._exporting is not None:
            self._exporting = self._exporting.beside()
            await self.query_one(ExportForm).show(self._exporting)
            self._judge()

    def action_replace(self) -> None:
        if self._exporting is not None and self._exporting.standing != "foreign":
            self._begin(force=True)

    def action_start(self) -> None:
        if self._state == "before":
            self._begin(force=False)

    def _begin(self, *, force: bool) -> None:
        assert self._exporting is not None
        exporting, self._last = self._exporting, ("", "")
        self.problem("")
        self.think(lambda: exporting.begin(force=force), self._begun, "begin")

    def _begun(self, exporting: Exporting) -> None:
        self._exporting = exporting
        assert exporting.job is not None
        self.become(self.journey.with_job("export", exporting.job.id))
        self._watch()

    # During and after.

    def _watch(self) -> None:
        assert self._exporting is not None
        self._become("work")
        self.query_one("#going", Facts).show(self._exporting.going)
        self.say(f"Exporting to {self._exporting.to}. You may leave this screen, or edgeq: it goes on.")
        self.query_one(JobPanel).watch_job(self._exporting.job)

    @on(JobPanel.Seen)
    def _seen(self, event: JobPanel.Seen) -> None:
        seen = event.look
        if self._exporting is None:
            return
        if seen.state in ("running", "paused"):
            self._become("work" if seen.state == "running" else "paused")
            if seen.state == "paused":
                self.say("Paused. Press p to go on.")
        elif seen.state == "done":
            from edgeq.measure.proof_words import proof_rows

            self._keep(str(seen.result["artifact"]))
            self._show_made(proof_rows(seen.result))
        else:
            self._ended(seen)

    def _ended(self, seen: Look) -> None:
        from edgeq.jobs import words

        free = self._exporting is not None and self._exporting.standing == "nothing"
        self._last = words.ended(seen, "Nothing was kept. Press s to begin again" if free else "")
        self._list()

    def _keep(self, path: str) -> None:
        self.become(self.journey.with_artifact(path))

    def _show_files(self, place: str, folder: Path) -> None:
        """What an artifact's folder holds, if it is one."""
        from edgeq.tui import exporting

        def show(rows: list[tuple[str, str]]) -> None:
            self.query_one(place, Facts).show(rows)
            if place == "#there":
                self.query_one("#there-title").display = bool(rows)

        self.think(lambda: exporting.files_of(folder), show, f"files {place}")

    def _show_made(self, rows: list[tuple[str, str]]) -> None:
        self._become("after")
        self._show_files("#written", Path(dict(rows)["artifact"]))
        self.query_one("#made", Facts).show(rows)
        made = [a for a in self.journey.artifacts if ("artifact", a) not in rows]
        self.query_one("#others", Facts).show(("also made", a) for a in made)
        self.say("Proved and ready. Press n to measure it, a to export for another runtime.")

    def action_pause(self) -> None:
        self._act("pause" if self._state == "work" else "resume")

    def action_cancel(self) -> None:
        self._act("cancel")

    def _act(self, name: str) -> None:
        self.act_on(self._exporting.job if self._exporting is not None else None, name)

    def action_again(self) -> None:
        if self._exporting is not None:
            self._exporting = self._exporting.chosen(self._exporting.to)
            self._list()
