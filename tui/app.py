"""The application: one screen a step, keys that work everywhere, and the road that all of them share."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import ClassVar

from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen

from edgeq.errors import EdgeqError
from edgeq.journey import STEPS, Journey, Step
from edgeq.tui.colourless import mend_monochrome
from edgeq.tui.messages import GoTo
from edgeq.tui.road import Road
from edgeq.tui.screens import screen_of
from edgeq.tui.screens.step import StepScreen
from edgeq.tui.settling import AFTER_S, mend_styles_cache, settle
from edgeq.tui.stylesheet import QuickStylesheet
from edgeq.tui.themes import DARK, LIGHT
from edgeq.tui.widgets.stepbar import TITLES


class EdgeqApp(App[None], inherit_bindings=False):  # Textual's own come in another order
    """From a device to a chat with a model that runs on it."""

    TITLE = "edgeq"
    CSS_PATH = "styles/app.tcss"
    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(n), f"go('{step}')", TITLES[step], show=False) for n, step in enumerate(STEPS, 1)),
        # Of the keys of one action the footer names the first that works: in a field `q` and `?` are text.
        Binding("q", "quit", "Quit"),
        Binding("ctrl+q", "quit", "Quit", key_display="^q", priority=True),
        Binding("n", "step(1)", "Next", tooltip="The next step"),
        Binding("b", "step(-1)", "Back", tooltip="The step before"),
        Binding("j", "runs", "Runs", tooltip="Work in progress, also of other windows"),
        Binding("t", "theme", "Light/dark", show=False),
        Binding("question_mark", "about", "Help", key_display="?"),
        Binding("f1", "about", "Help"),
        Binding("ctrl+p", "command_palette", "Commands", show=False),
        Binding("ctrl+c", "help_quit", show=False, system=True),
    ]

    def __init__(self, journey: Journey, *, welcome: bool = False) -> None:
        """Args:
        welcome: first ask whether an earlier journey is taken up.
        """
        super().__init__()
        self.stylesheet = QuickStylesheet(variables=self.get_css_variables())
        mend_monochrome(self)
        mend_styles_cache()
        self.road = Road(journey)
        self._welcome = welcome
        self.register_theme(DARK)
        self.register_theme(LIGHT)
        self.theme = DARK.name

    def on_mount(self) -> None:
        self.show_step(self.road.journey.step)
        if self._welcome:
            from edgeq.tui.screens.welcome import WelcomeScreen

            self.push_screen(WelcomeScreen())

    def on_unmount(self) -> None:
        self.road.close()

    def show_step(self, step: Step) -> None:
        """Replace what is shown by a step's screen."""
        while len(self.screen_stack) > 1:
            self.pop_screen()
        if self.road.journey.model is not None:  # nothing is kept of a look around
            try:
                self.road.at(step)
            except EdgeqError as error:
                self.notify(error.line, severity="error")
        self.push_screen(screen_of(step))
        self.set_timer(AFTER_S, partial(settle, step))

    def on_go_to(self, message: GoTo) -> None:
        self.show_step(message.step)

    @property
    def step(self) -> Step:
        """The step that is shown, beneath whatever lies over it."""
        shown = [s for s in self.screen_stack if isinstance(s, StepScreen)]
        return shown[-1].STEP if shown else self.road.journey.step

    def action_go(self, step: Step) -> None:
        self.show_step(step)

    def action_step(self, by: int) -> None:
        at = STEPS.index(self.step) + by
        if by > 0 and at < len(STEPS) and self.road.journey.lacks(STEPS[at]) == self.step:
            self.notify(f"{TITLES[self.step]} comes first: the sentence at the top says what to do")
        elif 0 <= at < len(STEPS):
            self.show_step(STEPS[at])

    async def action_quit(self) -> None:
        while not self.screen.is_mounted:  # one that is left half-composed looks in vain for its parts
            await asyncio.sleep(0.01)
        self.exit()

    def action_theme(self) -> None:
        self.theme = LIGHT.name if self.theme == DARK.name else DARK.name

    def action_about(self) -> None:
        from edgeq.tui.screens.help import HelpScreen

        self.push_screen(HelpScreen(self.step))

    def action_runs(self) -> None:
        from edgeq.tui.screens.runs import RunsScreen

        self.push_screen(RunsScreen())

    def get_system_commands(self, screen: Screen[object]) -> Iterator[SystemCommand]:
        yield from super().get_system_commands(screen)
        for number, step in enumerate(STEPS, 1):
            yield SystemCommand(f"Go to {TITLES[step]}", f"Step {number} of the road", lambda s=step: self.show_step(s))
        yield SystemCommand("Runs", "Work in progress, also of other windows", self.action_runs)
        yield SystemCommand("Light or dark", "Change the theme", self.action_theme)
