"""The step deliver: where the result is, how to load it, and a report of how it came about."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.highlight import highlight
from textual.widgets import Input, Select, Static, Tab, Tabs

from edgeq.journey import Step
from edgeq.tui.screens.step import StepScreen
from edgeq.tui.widgets.facts import Facts

if TYPE_CHECKING:
    from edgeq.deliver import Delivery
    from edgeq.deliver.ways import Way
    from edgeq.tui.delivering import Delivering


class DeliverScreen(StepScreen):
    STEP: ClassVar[Step] = "deliver"
    CSS_PATH = "../styles/deliver.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]  # noqa: RUF012
    HELP = """
An artifact is a folder that its runtime loads; edgeq is not needed to run it. Each tab is a small program that loads
this very folder, with what has to be installed for it: pick a language with `←` `→`, scroll with `↑` `↓`.

The **report** says what was chosen and why, how it was quantized, how it was proved and how fast it is, and lists the
commands that make it again. It lies beside the artifact, not in it, and every file is compared with its checksum first.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "copy", "Copy", tooltip="Copy the program to the clipboard"),
        Binding("f", "path", "Copy path", tooltip="Copy where the artifact lies"),
        Binding("w", "report", "Report", tooltip="Save a report; a name that ends in .json gives JSON"),
        Binding("a", "other", "Other", tooltip="Show the next artifact"),
        Binding("escape", "leave", "Cancel", tooltip="No report now"),
        Binding("down", "scroll(1)", show=False),
        Binding("up", "scroll(-1)", show=False),
        Binding("pagedown", "scroll(10)", show=False),
        Binding("pageup", "scroll(-10)", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._delivering: Delivering | None = None
        self._asking = False  # where the report goes

    def body(self) -> ComposeResult:
        yield Select[int]([], allow_blank=True, compact=True, prompt="Artifact", id="which")
        with Horizontal(id="both"):
            with VerticalScroll(id="about", can_focus=False):
                yield Facts("", id="all")
                yield Facts("", id="short")
            with Vertical(id="load"):
                yield Tabs(id="ways")
                yield Static("", id="install", markup=False)
                with VerticalScroll(id="program"):
                    yield Static("", id="code", markup=False)
        with Horizontal(id="saving"):
            yield Static("Report to", classes="dim")
            yield Input(id="to", compact=True, select_on_focus=False)

    def enter(self) -> None:
        from edgeq.tui.delivering import delivering_of

        self.query_one("#both").display = False
        self.say("Reading the artifact ...")
        self.think(lambda: delivering_of(self.road), self._ready)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        several = self._delivering is not None and len(self._delivering.items) > 1
        allowed = {
            "copy": self._delivery is not None and not self._asking,
            "path": self._delivery is not None and not self._asking,
            "report": self._delivery is not None and not self._asking,
            "other": several and not self._asking,
            "leave": self._asking,
            "scroll": self._delivery is not None,
        }
        return allowed.get(action, True)

    @property
    def _delivery(self) -> Delivery | None:
        return None if self._delivering is None else self._delivering.item.found

    # Which artifact.

    async def _ready(self, delivering: Delivering) -> None:
        which = self.query_one("#which", Select)
        which.display = len(delivering.items) > 1
        which.set_options((item.label, i) for i, item in enumerate(delivering.items))
        await self._show(delivering)

    async def _show(self, delivering: Delivering) -> None:
        self._delivering = delivering
        item = delivering.item
        with self.prevent(Select.Changed):
            self.query_one("#which", Select).value = delivering.at
        self._ask(False)
        self.problem(*item.problem)
        self.query_one("#all", Facts).show(item.rows)
        self.query_one("#short", Facts).show(item.short)
        self.query_one("#both").display = item.found is not None
        await self.query_one("#ways", Tabs).remove()
        ways = () if item.found is None else item.found.ways
        tabs = Tabs(*(Tab(way.title, id=way.id) for way in ways), id="ways")
        await self.query_one("#load").mount(tabs, before=0)
        self.query_one("#load").display = bool(ways)
        self.say(delivering.sentence)
        self.refresh_bindings()
        if item.found is not None:
            tabs.focus()

    @on(Select.Changed, "#which")
    async def _picked(self, event: Select.Changed) -> None:
        if self._delivering is not None and isinstance(event.value, int) and event.value != self._delivering.at:
            await self._show(self._delivering.shown(event.value))

    async def action_other(self) -> None:
        if self._delivering is not None:
            await self._show(self._delivering.shown(self._delivering.at + 1))

    # Which program.

    @on(Tabs.TabActivated, "#ways")
    def _turned(self) -> None:
        way = self._way
        if way is None:
            return
        about = f"{way.versions}. {way.note}".strip()
        self.query_one("#install", Static).update(f"Install: {way.install}\nFor {about}")
        self.query_one("#code", Static).update(highlight(way.code.rstrip(), language=way.language))
        self.query_one("#program", VerticalScroll).scroll_home(animate=False)

    @property
    def _way(self) -> Way | None:
        chosen = self.query_one("#ways", Tabs).active
        ways = () if self._delivery is None else self._delivery.ways
        return next((way for way in ways if way.id == chosen), None)

    def action_scroll(self, lines: int) -> None:
        self.query_one("#program", VerticalScroll).scroll_relative(y=lines, animate=False, immediate=True)

    def action_copy(self) -> None:
        way = self._way
        if way is not None:
            self.app.copy_to_clipboard(way.code)
            self.notify(f"The program for {way.title} is in the clipboard")

    def action_path(self) -> None:
        if self._delivery is not None:
            self.app.copy_to_clipboard(str(self._delivery.place))
            self.notify(f"{self._delivery.place} is in the clipboard")

    # The report.

    def _ask(self, asking: bool) -> None:
        self._asking = asking
        self.query_one("#saving").display = asking
        self.refresh_bindings()

    def action_report(self) -> None:
        from edgeq.deliver.report import default_place

        if self._delivery is None:
            return
        self._ask(True)
        place = self.query_one("#to", Input)
        place.value = str(default_place(self._delivery))
        place.cursor_position = len(place.value)
        place.focus()
        self.say("Press enter to save the report there, or change the name first.")

    def action_leave(self) -> None:
        self._ask(False)
        if self._delivering is not None:
            self.problem("")
            self.say(self._delivering.sentence)
        self.query_one("#ways", Tabs).focus()

    @on(Input.Submitted, "#to")
    def _save(self, event: Input.Submitted) -> None:
        from edgeq.tui.delivering import report_to

        found, place = self._delivery, event.value.strip()
        if found is None or not place:
            return
        self.problem("")
        self.say("Comparing the files with their checksums ...")
        self.think(lambda: report_to(found, Path(place)), self._saved, "report")

    def _saved(self, place: Path) -> None:
        if not self._asking:
            return
        self._ask(False)
        self.query_one("#ways", Tabs).focus()
        self.say(f"Done: the report is {place}")
