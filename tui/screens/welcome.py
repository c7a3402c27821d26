"""What is asked first when an earlier journey could go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from edgeq.errors import EdgeqError
from edgeq.journey import begin, find_journey
from edgeq.tui.road import Road
from edgeq.tui.widgets.key_bar import KeyBar

if TYPE_CHECKING:
    from edgeq.tui.returning import Way

NEW = "new"
_EVERY_S = 1.0
_ANEW = Text.assemble("Begin anew\n", ("  see what this machine is and what fits it", "dim"))


class WelcomeScreen(ModalScreen[None]):
    """Go on with an earlier journey, or begin a new one."""

    CSS_PATH = "../styles/welcome.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "choose", "Go on", key_display="⏎", priority=True),
        Binding("n", "anew", "Begin anew"),
        Binding("escape", "dismiss", "Look around", key_display="esc", show=False),
        Binding("q", "app.quit", "Quit"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._ways: list[Way] = []

    def compose(self) -> ComposeResult:
        with Vertical(id="welcome"):
            yield Static("Welcome back", classes="title")
            yield Static("Go on where you were: choose with ↑ ↓ and Enter. Or begin anew.", classes="dim")
            yield OptionList()
            yield Static("", id="welcome-problem", markup=False)
        yield KeyBar()

    def on_mount(self) -> None:
        if not self.is_attached:  # the application was left meanwhile
            return
        self._look()
        self.set_interval(_EVERY_S, self._look)

    def _look(self) -> None:
        self.run_worker(self._read, thread=True, exclusive=True, group="look", exit_on_error=False)

    def _read(self) -> None:
        from edgeq.tui.returning import ways

        found = ways()
        self.app.call_from_thread(self.call_later, self._show, found)

    def _show(self, ways: list[Way]) -> None:
        """List them; where only what is said of them changed, the lines are drawn anew and the cursor stays."""
        chooser = self.query_one(OptionList)
        if [w.journey_id for w in ways] != [w.journey_id for w in self._ways] or not chooser.option_count:
            chooser.clear_options()
            chooser.add_options([*(Option(_line(w), id=w.journey_id) for w in ways), Option(_ANEW, id=NEW)])
            chooser.highlighted = 0
        else:
            for before, now in zip(self._ways, ways, strict=True):
                if before != now:
                    chooser.replace_option_prompt(now.journey_id, _line(now))
        self._ways = ways

    def action_choose(self) -> None:
        chooser = self.query_one(OptionList)
        if chooser.highlighted is not None:
            self._open(str(chooser.get_option_at_index(chooser.highlighted).id))

    def action_anew(self) -> None:
        self._open(NEW)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self._open(str(event.option_id))

    def _open(self, which: str) -> None:
        from edgeq.tui.app import EdgeqApp

        assert isinstance(self.app, EdgeqApp)
        try:
            chosen = begin(self.app.road.journey.folder) if which == NEW else find_journey(which)
        except EdgeqError as error:  # taken away meanwhile
            self.query_one("#welcome-problem", Static).update(f"{error.what}. Choose another, or n to begin anew")
            return
        self.app.road = Road(chosen)
        self.app.show_step(chosen.step)


def _line(way: Way) -> Text:
    return Text.assemble(f"{way.title}\n", (f"  {way.line}", "dim"))
