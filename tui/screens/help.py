"""`?`: the keys of this screen, what the step is about, and where to read more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Markdown, Static

from edgeq.journey import Step
from edgeq.tui.widgets.facts import Facts

_EVERYWHERE = (
    ("1 … 8", "go to a step"),
    ("n b", "next step, step before"),
    ("tab shift+tab", "next, previous field"),
    ("j", "work in progress, also of other windows"),
    ("t", "light or dark"),
    ("ctrl+p", "every command by name"),
    ("q", "leave; work in progress goes on"),
)


class HelpScreen(ModalScreen[None]):
    """Help on a step, over its screen."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,question_mark,f1,q,enter", "dismiss", "Close")]

    def __init__(self, step: Step) -> None:
        super().__init__()
        self._step = step

    def compose(self) -> ComposeResult:
        from edgeq.tui.screens.step import StepScreen

        below = next((s for s in reversed(self.app.screen_stack) if isinstance(s, StepScreen)), None)
        keys = [] if below is None else _keys(below)
        with VerticalScroll(id="help"):
            if below is not None and below.HELP.strip():
                yield Markdown(below.HELP.strip())
            # Facts and not Markdown's tables, which are a widget a cell: too slow beside a quantization.
            if keys:
                yield Static("Keys of this step", classes="title")
                yield _table(keys)
            yield Static("Keys everywhere", classes="title")
            yield _table(_EVERYWHERE)
            yield Static("esc closes this.", classes="dim")


def _table(rows: Iterable[tuple[str, str]]) -> Facts:
    table = Facts(classes="keys")
    table.show(rows)
    return table


def _keys(screen: object) -> list[tuple[str, str]]:
    """The keys that a screen adds, and what they do."""
    found = getattr(type(screen), "BINDINGS", [])
    own = [b for b in found if isinstance(b, Binding) and b.description]
    return [(b.key_display or b.key.split(",")[0], b.tooltip or b.description) for b in own]
