"""The step device: what this machine is and what its figures mean, measured here; or another one of the catalog."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Static

from edgeq.errors import EdgeqError
from edgeq.journey import Step, journeys
from edgeq.tui.screens.step import StepScreen
from edgeq.tui.widgets.device_facts import DeviceFacts
from edgeq.tui.widgets.job_panel import JobPanel

if TYPE_CHECKING:
    from edgeq.device.spec import Memory
    from edgeq.jobs import Look
    from edgeq.tui.looking import Looking

_EVERY_S = 1.0
FIRST = "Welcome: edgeq finds a model that fits this machine, makes it small and lets you chat."


class DeviceScreen(StepScreen):
    STEP: ClassVar[Step] = "device"
    CSS_PATH = "../styles/device.tcss"
    HELP = """
What a model needs of a device: **memory** to lie in, and **bandwidth** to be read from it, because each word it writes
(a token) reads every weight once. The **processor** decides how fast your prompt is read. **Kernels** are the
runtimes' own routines: timed here, they make the plan's expected speeds this machine's own.

A figure is measured, from a data sheet, or assumed: it says which. You can plan for a device that you don't have at
hand: a phone, a board, a graphics card (`o`), or another machine's file, written there by `edgeq profile --json`.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("m", "measure", "Measure", tooltip="Measure this machine, the runtimes' kernels too; about a minute"),
        Binding("c", "cancel", "Cancel", tooltip="End the measurement"),
        Binding("o", "other", "Other device", tooltip="Plan for a phone, a board, a card, another machine"),
        Binding("h", "here", "This machine", tooltip="Back to this machine"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._looking: Looking | None = None
        self._measured = False  # on this visit

    def body(self) -> ComposeResult:
        yield Static("", id="device-name", markup=False)
        yield JobPanel(id="job")
        with VerticalScroll(id="facts-scroll"):
            yield DeviceFacts(id="facts")

    def enter(self) -> None:
        self.query_one("#job").display = False
        self.set_interval(_EVERY_S, self._tick)
        self._load()

    def _load(self) -> None:
        from edgeq.tui.looking import glimpse_of

        self.problem("")
        self.say("Looking at this machine ..." if self.journey.device == "auto" else "Looking it up ...")

        def look() -> Looking | EdgeqError:
            try:
                return glimpse_of(self.road)
            except EdgeqError as error:
                return error

        self.think(look, self._glimpsed)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        working = self._looking is not None and self._looking.job is not None
        able = {
            "measure": self._looking is not None and self._looking.local and not working,
            "cancel": working,
            "here": self.journey.device != "auto",
        }
        return able.get(action, True)

    def _glimpsed(self, found: Looking | EdgeqError) -> None:
        from edgeq.tui.looking import looking_of

        if isinstance(found, EdgeqError):
            self.problem(found.what, found.hint or "")
            self.say("Press o to choose another device, or h for this machine.")
            return
        self._show(found)
        if found.job is not None:
            self._watch()
        elif found.standing == "none":
            self.say("Measuring how fast this machine reads its memory: a few seconds ...")
            self.think(lambda: looking_of(self.road), self._known)
        else:
            self._next()

    def _known(self, found: Looking) -> None:
        self._show(found)
        self._next()

    def _show(self, looking: Looking) -> None:
        self._looking = looking
        name, whence = looking.title
        self.query_one("#device-name", Static).update(f"{name}  ({whence})")
        self.query_one(DeviceFacts).show(looking.parts, looking.used, looking.notes)
        self.refresh_bindings()

    def _next(self) -> None:
        """What to do now."""
        assert self._looking is not None
        go_on = "Press n to choose a model"
        if not self._looking.local:
            self.say(f"Planning for this device. {go_on}.")
        elif self.journey.model is None and not self._measured and not journeys():
            self.say(f"{FIRST} {go_on}.")
        elif self._looking.notes:
            self.say(f"{go_on}, m to measure again, better when the machine is idle.")
        elif self._looking.standing == "full":
            self.say(f"Measured. {go_on}.")
        else:
            self.say(f"{go_on}, m to measure the runtimes too, for surer speeds.")

    # The memory, live.

    def _tick(self) -> None:
        from edgeq.tui.looking import memory_now

        if self._looking is not None and self._looking.local and self.is_current:
            self.think(memory_now, self._memory, "memory")

    def _memory(self, now: Memory) -> None:
        if self._looking is not None and self._looking.local:
            self._show(self._looking.with_memory(now))

    # Measuring.

    def action_measure(self) -> None:
        from edgeq.tui.looking import measure

        self.problem("")
        self.think(measure, self._begun, "begin")

    def _begun(self, job: object) -> None:
        from edgeq.jobs import Job

        assert isinstance(job, Job)
        if self._looking is not None:
            self._looking = replace(self._looking, job=job)
            self._watch()

    def _watch(self) -> None:
        assert self._looking is not None
        self.query_one("#job").display = True
        self.say("Measuring, about a minute: leave the machine alone. Press n to go on.")
        self.query_one(JobPanel).watch_job(self._looking.job)
        self.refresh_bindings()

    @on(JobPanel.Seen)
    def _seen(self, event: JobPanel.Seen) -> None:
        if event.look.state not in ("running", "paused"):
            self._ended(event.look)

    def _ended(self, seen: Look) -> None:
        from edgeq.jobs import words
        from edgeq.tui.looking import looking_of

        self.query_one("#job").display = False
        if self._looking is not None:
            self._looking = replace(self._looking, job=None)
        self._measured = seen.state == "done"
        self.refresh_bindings()
        if seen.state in ("failed", "interrupted"):
            hint = seen.failure.hint if seen.failure is not None else None
            self.problem(f"It could not be measured: {words.now(seen)}", hint or "Press m to try again, j for its log")
        self.think(lambda: looking_of(self.road), self._known)

    def action_cancel(self) -> None:
        from edgeq import jobs

        job = self._looking.job if self._looking is not None else None
        if job is not None:
            self.think(lambda: jobs.cancel(job), lambda _: self.query_one(JobPanel).watch_job(job), "act")

    # Another device.

    def action_other(self) -> None:
        from edgeq.tui.screens.device_picker import DevicePicker

        self.app.push_screen(DevicePicker(self.journey.device), self._chosen)

    def action_here(self) -> None:
        self._chosen("auto")

    def _chosen(self, ref: str | None) -> None:
        if ref is not None and ref != self.journey.device:
            self._looking = None
            self.become(self.journey.with_device(ref))
            self._load()
