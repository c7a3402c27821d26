"""`?`: the keys of this screen, what the step is about, and where to read more."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Markdown

from edgeq.journey import Step

_EVERYWHERE = """
| key | |
|---|---|
| `1` … `8` | go to a step |
| `n` `b` | next step, step before |
| `tab` `shift+tab` | next, previous field |
| `j` | work in progress, also of other windows |
| `t` | light or dark |
| `ctrl+p` | every command by name |
| `q` | leave; work in progress goes on |
"""


class HelpScreen(ModalScreen[None]):
    """Help on a step, over its screen."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,question_mark,f1,q,enter", "dismiss", "Close")]

    def __init__(self, step: Step) -> None:
        super().__init__()
        self._step = step

    def compose(self) -> ComposeResult:
        from edgeq.tui.screens.step import StepScreen

        below = next((s for s in reversed(self.app.screen_stack) if isinstance(s, StepScreen)), None)
        own = below.HELP.strip() if below is not None else ""
        keys = [] if below is None else list(_keys(below))
        table = "\n".join(("| key | |", "|---|---|", *keys)) if keys else ""
        with VerticalScroll(id="help"):
            yield Markdown("\n\n".join((own, table, "Everywhere:", _EVERYWHERE)))


def _keys(screen: object) -> list[str]:
    """The keys that a screen adds, a table's row each."""
    found = getattr(type(screen), "BINDINGS", [])
    own = [b for b in found if isinstance(b, Binding) and b.description]
    return [f"| `{b.key_display or b.key.split(',')[0]}` | {b.tooltip or b.description} |" for b in own]
