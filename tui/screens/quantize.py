"""The step quantize: what will be done and what it takes; how it goes, layer by layer; what came of it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import ContentSwitcher, Static

from edgeq.errors import EdgeqError
from edgeq.journey import Step
from edgeq.tui.hints import error_line
from edgeq.tui.screens.step import LEAVE_FIELD, StepScreen
from edgeq.tui.widgets.facts import Facts
from edgeq.tui.widgets.job_panel import JobPanel
from edgeq.tui.widgets.recipe_form import RecipeForm

if TYPE_CHECKING:
    from edgeq.jobs import Look
    from edgeq.quantize.so_far import LayerError, MatrixDone
    from edgeq.tui.making import Making

Layers: TypeAlias = "tuple[list[MatrixDone], list[LayerError], int]"
State = Literal["thinking", "before", "exists", "work", "paused", "after"]
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
TITLE = "Output lost in each layer, %: the line is the mean, a dot the worst matrix"


class QuantizeScreen(StepScreen):
    STEP: ClassVar[Step] = "quantize"
    CSS_PATH = "../styles/quantize.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide"), (160, "-very-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-short"), (32, "-tall")]  # noqa: RUF012
    HELP = """
Quantizing writes the model anew with fewer bits a weight. **Method** says how the codes are chosen: `rtn` rounds each
weight to the nearest, in seconds; `gptq`, `awq` and `autoround` read text and make up for what rounding loses.
**Group** is how many weights share a scale. **Lost** is the share of a layer's output that is off, squared.

The work runs in a process of its own: leave this screen or the application, and it goes on. After a cancel, a power
cut or a full disk, it takes up where it stopped.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "start", "Start", tooltip="Begin, or go on where it stopped"),
        Binding("o", "options", "Options", tooltip="Method, bits, group, text, threads, folder"),
        Binding("y", "copy", "Copy command", tooltip="The same as a command, to the clipboard"),
        Binding("p", "pause", "Pause/resume", tooltip="Stop for now, or go on"),
        Binding("c", "cancel", "Cancel", tooltip="End it; it can be taken up again"),
        Binding("u", "use", "Use it", tooltip="Go on with the checkpoint that is there"),
        Binding("w", "rename", "Other name", tooltip="Write beside it"),
        Binding("r", "replace", "Replace", tooltip="Replace it, once the new one is whole"),
        Binding("a", "again", "Again", tooltip="Quantize with other options"),
        LEAVE_FIELD,
    ]

    def __init__(self) -> None:
        super().__init__()
        self._state: State = "thinking"
        self._making: Making | None = None

    def body(self) -> ComposeResult:
        with ContentSwitcher(initial="thinking"):
            yield Static("Reading the model ...", id="thinking", classes="dim")
            with Horizontal(id="before"):
                with VerticalScroll(id="will", can_focus=False):
                    yield Static("", id="words", markup=False)
                    yield Facts("", id="needs")
                    yield Static("", id="command", markup=False)
                yield RecipeForm(id="form")
            with Vertical(id="work"):
                yield JobPanel(self._memory, id="job")
                yield Facts("", id="first")
                yield Facts("", id="made")
                yield Static(TITLE, classes="dim", markup=False, id="layers-title")
                yield Horizontal(id="layers")

    def enter(self) -> None:
        from edgeq.tui.making import making_of

        self.say("Reading the model ...")
        self.think(lambda: making_of(self.road), self._ready)
        self.set_timer(0.1, self._unread)

    def _unread(self) -> None:
        if self._making is None and self._state == "thinking":
            self.say("If it can't be read: press 2 for another model, 3 for another plan.")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return self._state in _KEYS[action] if action in _KEYS else action != "leave_field" or self.in_field

    def _become(self, state: State) -> None:
        if state == self._state:
            return
        self._state = state
        shown = {"exists": "before", "paused": "work", "after": "work"}.get(state, state)
        self.query_one(ContentSwitcher).current = shown
        self.query_one("#job").display = state != "after"
        self.query_one("#made").display = state == "after"
        self.set_class(state == "after", "done")
        if state == "after":
            self._show_first([])
        self.refresh_bindings()

    def _ready(self, making: Making) -> None:
        self._making = making
        job = making.job
        if job is not None:
            self._watch()
        elif self.journey.checkpoint is not None:
            self._finished(self.journey.checkpoint)
        else:
            self._before()

    # Before: what will be done, and what it takes.

    def _before(self, *, keep_problem: bool = False) -> None:
        assert self._making is not None
        making = self._making
        self._become("before")
        if not keep_problem:
            self.problem("")
        self.query_one(RecipeForm).show(making.recipe, making.out, making.threads)
        self.query_one("#words", Static).update(making.sentence)
        self.query_one("#command", Static).update(making.command)
        self.say("Working out what it will take ...")
        self.think(making.ask, self._asked, "needs")

    def _asked(self, answer: dict[str, Any]) -> None:
        assert self._making is not None
        self.query_one("#needs", Facts).show([*((n, t) for n, t in answer["rows"]), ("folder", str(self._making.out))])
        if answer["summary"]:
            self.query_one("#words", Static).update(
                f"{self._making.recipe.method}: {answer['summary']}.\n{self._making.sentence}"
            )
        if self._state not in ("before", "exists"):
            return
        self.say(self._making.guide(answer))
        if answer["problem"]:
            self.problem(answer["problem"]["what"], answer["problem"]["hint"] or "")
        elif self._making.standing != "nothing":
            self._become("exists")

    @on(RecipeForm.Changed)
    def _changed(self, event: RecipeForm.Changed) -> None:
        if self._making is None:
            return
        self.workers.cancel_group(self, "begin")  # what it would say is of the options before
        form = self.query_one(RecipeForm)
        try:
            self._making = self._making.changed(event.name, event.value)
        except EdgeqError as error:
            form.wrong(event.name, error_line(error))
            return
        form.wrong(None)
        self._before()

    def action_options(self) -> None:
        form = self.query_one(RecipeForm)
        if self.has_class("-narrow"):
            self.toggle_class("options")
        if form.display:
            form.focus_first()

    def action_copy(self) -> None:
        if self._making is not None:
            self.app.copy_to_clipboard(self._making.command)
            self.notify("The command is in the clipboard")

    def action_use(self) -> None:
        if self._making is not None and self._making.standing != "foreign":
            self._keep_checkpoint(str(self._making.out))

    def action_rename(self) -> None:
        if self._making is not None:
            self._making = self._making.beside()
            self._before()

    def action_replace(self) -> None:
        if self._making is not None and self._making.standing != "foreign":
            self._begin(force=True)

    def action_start(self) -> None:
        if self._making is not None:
            self._begin(force=False)

    def _begin(self, *, force: bool) -> None:
        assert self._making is not None
        making = self._making
        self.problem("")
        self.think(lambda: making.begin(force=force), self._begun, "begin")

    def _begun(self, making: Making) -> None:
        self._making = making
        assert making.job is not None
        self.become(
            replace(self.journey, recipe=making.recipe_json, checkpoint=None).with_job("quantize", making.job.id)
        )
        self._watch()

    # During: how it goes.

    def _watch(self) -> None:
        assert self._making is not None
        self._become("work")
        self.query_one(JobPanel).watch_job(self._making.job)

    def _memory(self, seen: Look) -> list[str]:
        return [] if self._making is None else self._making.parts(seen)

    @on(JobPanel.Seen)
    def _seen(self, event: JobPanel.Seen) -> None:
        seen, making = event.look, self._making
        if making is None:
            return
        if seen.state in ("running", "paused"):
            self._become("work" if seen.state == "running" else "paused")
            self.say(making.where(seen))
            self._show_first(making.first(seen))
            self.think(partial(_layers_of, making), self._layers, "layers")
        elif seen.state == "done":
            self._keep_checkpoint(str(seen.result["checkpoint"]))
        else:
            self._ended(seen)

    def _show_first(self, rows: list[tuple[str, str]]) -> None:
        """What comes before the layers, in their place."""
        self.set_class(bool(rows), "first")
        self.query_one("#first", Facts).show(rows)

    def _ended(self, seen: Look) -> None:
        from edgeq.jobs import words

        assert self._making is not None
        self._making = self._making.stopped(seen.state)
        self._before(keep_problem=True)
        self.problem(*words.ended(seen, "Press s: it goes on from the last finished layer"))

    async def _layers(self, found: Layers) -> None:
        from edgeq.tui.widgets.error_plot import ErrorPlot
        from edgeq.tui.widgets.layer_list import LayerList

        done, errors, count = found
        place = self.query_one("#layers")
        if not place.children:
            await place.mount(ErrorPlot(id="plot"), LayerList(id="list"))
        for plot in place.query(ErrorPlot):  # none, when the screen was left meanwhile
            plot.show(errors, count)
        for layers in place.query(LayerList):
            layers.show(done)

    def action_pause(self) -> None:
        self._act("pause" if self._state == "work" else "resume")

    def action_cancel(self) -> None:
        self._act("cancel")

    def _act(self, name: str) -> None:
        self.act_on(self._making.job if self._making is not None else None, name)

    # After: what came of it.

    def _keep_checkpoint(self, path: str) -> None:
        assert self._making is not None
        self.become(replace(self.journey, checkpoint=path, recipe=self._making.recipe_json))
        self._finished(path)

    def _finished(self, path: str) -> None:
        assert self._making is not None
        self._making = replace(self._making, out=Path(path), job=None)
        making = self._making
        self._become("after")
        self.say("Done. Press n to export it for a runtime.")
        self.think(making.made, self._made, "made")
        self.think(partial(_layers_of, making), self._layers, "layers")

    def _made(self, rows: list[tuple[str, str]]) -> None:
        self.query_one("#made", Facts).show(rows)

    def action_again(self) -> None:
        if self._making is not None:
            self._making = self._making.anew(self.journey.folder)
            self._before()


def _layers_of(making: Making) -> Layers:
    """What is shown of the layers. Blocks; and imports what draws it, which takes longer than a key may wait."""
    from edgeq.tui.widgets import error_plot, layer_list  # noqa: F401

    return making.layers()
