"""What is asked of the plan, each in a line of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Input, Label, Select, Static

from edgeq.estimate.kv import KV_DTYPES
from edgeq.plan import OBJECTIVES, Request
from edgeq.plan.asking import typed
from edgeq.tui.widgets.option_form import OptionForm

_LABELS = {
    "context": ("context", "Tokens of prompt and answer together: more take more memory"),
    "batch": ("sequences", "Chats at the same time"),
    "max_memory": ("memory limit", "What the model may take, e.g. 6GB; empty: what the device has free"),
    "min_tps": ("least tok/s", "For each sequence; empty: any"),
    "objective": ("best is", "What comes first in the order"),
    "kv_dtype": ("cache", "How the model's memory of the conversation is kept: fewer bits take less"),
    "targets": ("runtime", "Only this one, or all"),
}
_EMPTY = {"max_memory": "all that is free", "min_tps": "any"}
_OBJECTIVES = {"balanced": "balanced", "quality": "least loss", "speed": "fastest", "size": "smallest"}
_KV = {"": "the runtime's own", **{name: name for name in KV_DTYPES}}


class RequestForm(OptionForm):
    """Shows a request; says what a person changes in it."""

    PREFIX = "r-"

    class Changed(Message):
        """`name` is a field of the request, `text` as typed, checked by the core."""

        def __init__(self, name: str, text: str) -> None:
            super().__init__()
            self.name, self.text = name, text

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, can_focus=False)
        self._targets: dict[str, str] = {"": "all"}

    def compose(self) -> ComposeResult:
        choices = {
            "objective": {name: _OBJECTIVES.get(name, name) for name in OBJECTIVES},
            "kv_dtype": _KV,
            "targets": self._targets,
        }
        for name, (label, about) in _LABELS.items():
            with Horizontal(classes="field"):
                yield Label(label, classes="dim")
                if name in choices:
                    options = [(text, value) for value, text in choices[name].items()]
                    yield Select(options, allow_blank=False, compact=True, id=f"r-{name}", tooltip=about)
                else:
                    empty = _EMPTY.get(name, "")
                    yield Input(compact=True, id=f"r-{name}", placeholder=empty, select_on_focus=True, tooltip=about)
        yield Static("", id="wrong", markup=False)
        yield self.about_line()

    def about(self, name: str) -> str:
        return _LABELS.get(name, ("", ""))[1]

    def show(self, request: Request, targets: Sequence[str]) -> None:
        """Show these values; nothing is said of it.

        Args:
            targets: that the device can run.
        """
        values = {name: typed(request, name) for name in _LABELS}
        offered = {"": "all", **{t: t for t in targets}}
        offered.setdefault(values["targets"], values["targets"])  # several, as a command line may ask
        with self.prevent(Select.Changed, Input.Changed):
            if offered != self._targets:
                self._targets = offered
                self.query_one("#r-targets", Select).set_options([(text, value) for value, text in offered.items()])
            for name, value in values.items():
                widget: Any = self.query_one(f"#r-{name}")
                if widget.value != value and not (isinstance(widget, Input) and widget.has_focus):
                    widget.value = value

    def wrong(self, name: str | None, what: str = "") -> None:
        """Mark the field that can't be so, and say why; None: all is well."""
        for field in self.query(".wrong"):
            field.remove_class("wrong")
        if name is not None:
            self.query_one(f"#r-{name}").add_class("wrong")
        self.query_one("#wrong", Static).update(what)

    @on(Select.Changed)
    def _chosen(self, event: Select.Changed) -> None:
        event.stop()
        self.post_message(self.Changed(str(event.select.id).removeprefix("r-"), str(event.value)))

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        self.post_message(self.Changed(str(event.input.id).removeprefix("r-"), event.value))
