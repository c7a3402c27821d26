"""What is asked first when an earlier journey could go on."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from edgeq.journey import begin, find_journey, journeys
from edgeq.tui.road import Road
from edgeq.tui.widgets.stepbar import TITLES

NEW = "new"
_MOST = 8


class WelcomeScreen(ModalScreen[None]):
    """Go on with an earlier journey, or begin a new one."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss", "Begin anew")]

    def compose(self) -> ComposeResult:
        with Vertical(id="welcome"):
            yield Static("Welcome back", classes="title")
            yield Static("Go on where you were, or begin anew.", classes="dim")
            options = [Option("Begin anew: see what this machine is and what fits it", id=NEW)]
            for one in journeys()[:_MOST]:
                when = one.started.replace("T", " ")[:16]
                options.append(Option(f"{one.title}\n  at {TITLES[one.step]}, begun {when}", id=one.id))
            yield OptionList(*options)

    def on_mount(self) -> None:
        if not self.is_attached:  # the application was left meanwhile, and nothing is on the screen
            return
        chooser = self.query_one(OptionList)
        chooser.highlighted = min(1, chooser.option_count - 1)
        chooser.focus()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        from edgeq.tui.app import EdgeqApp

        assert isinstance(self.app, EdgeqApp)
        chosen = begin(self.app.road.journey.folder) if event.option_id == NEW else find_journey(str(event.option_id))
        self.app.road = Road(chosen)
        self.app.show_step(chosen.step)
