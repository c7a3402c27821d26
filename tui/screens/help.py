"""`?`: what the step is about, the keys of its screen, and those that work everywhere."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.screen import ModalScreen

from edgeq.journey import Step
from edgeq.tui.widgets.facts import Facts
from edgeq.tui.widgets.key_bar import KeyBar
from edgeq.tui.widgets.prose import Prose
from edgeq.tui.widgets.stepbar import TITLES

_EVERYWHERE = [
    ("1 … 8", "Go to a step"),
    ("n  b", "Next step, step before"),
    ("tab", "Next field; shift+tab the one before"),
    ("j", "Work in progress, also of other windows"),
    ("t", "Light or dark"),
    ("ctrl+p", "Every command by name"),
    ("q", "Leave; work in progress goes on"),
]
_NAMES = {"question_mark": "?", "slash": "/"}


class HelpScreen(ModalScreen[None]):
    """Help on a step, over its screen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,f1,q,enter", "dismiss", "Close", key_display="esc"),
    ]
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]  # noqa: RUF012

    def __init__(self, step: Step) -> None:
        super().__init__()
        self._step = step

    def compose(self) -> ComposeResult:
        from edgeq.tui.screens.step import StepScreen

        below = next((s for s in reversed(self.app.screen_stack) if isinstance(s, StepScreen)), None)
        with VerticalScroll(id="help") as box:
            box.border_title, box.border_subtitle = f"Help: {TITLES[self._step]}", "↑ ↓ scroll, esc closes"
            if below is not None and below.HELP:
                yield Prose(below.HELP, id="words-of-help")
            with Horizontal(id="keys"):
                here = [] if below is None else _keys(below)
                if here:
                    yield Facts.of(here, "Here")
                yield Facts.of(_EVERYWHERE, "Everywhere")
        yield KeyBar()


def _keys(screen: object) -> list[tuple[str, str]]:
    """The keys that a screen adds, and what each does."""
    found = getattr(type(screen), "BINDINGS", [])
    own = [b for b in found if isinstance(b, Binding) and b.description]
    return [(b.key_display or _name(b.key.split(",")[0]), b.tooltip or b.description) for b in own]


def _name(key: str) -> str:
    return _NAMES.get(key, key)
