"""What a benchmark measures, each in a line of its own."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Input, Label, Static

from edgeq.measure.asking import Field, typed
from edgeq.measure.bench import Workload
from edgeq.tui.widgets.option_form import OptionForm

_LABELS: dict[Field, tuple[str, str]] = {
    "prompt_tokens": ("prompt tokens", "Lengths of the prompts that are read, with commas between them"),
    "tokens": ("new tokens", "That are written, for the speed of writing: more are more exact and take longer"),
    "reps": ("repeats", "Of each measurement; the middle one counts, and how far they differ is told"),
    "threads": ("threads", "Of the runtime; empty: as many as it takes of its own accord"),
}


class WorkloadForm(OptionForm):
    """Shows a workload; says what a person changes in it."""

    PREFIX = "w-"

    class Changed(Message):
        """`text` as typed, checked by the core."""

        def __init__(self, name: Field, text: str) -> None:
            super().__init__()
            self.name, self.text = name, text

    def compose(self) -> ComposeResult:
        yield Static("What is measured", classes="title", markup=False)
        for name, (label, about) in _LABELS.items():
            with Horizontal(classes="field"):
                yield Label(label, classes="dim")
                empty = "its own" if name == "threads" else ""
                yield Input(
                    compact=True, id=f"w-{name}", placeholder=empty, select_on_focus=False, tooltip=about, max_length=40
                )
        yield Static("", id="wrong", markup=False)
        yield self.about_line()
        yield self.all_about((label, name) for name, (label, _) in _LABELS.items())

    def about(self, name: str) -> str:
        return next((about for field, (_, about) in _LABELS.items() if field == name), "")

    def show(self, work: Workload) -> None:
        """Show these values; nothing is said of it."""
        with self.prevent(Input.Changed):
            for name in _LABELS:
                field = self.query_one(f"#w-{name}", Input)
                if not field.has_focus and field.value != typed(work, name):
                    field.value = typed(work, name)

    def wrong(self, name: Field | None, what: str = "") -> None:
        """Mark the field that can't be so, and say why; None: all is well."""
        for field in self.query(".wrong"):
            field.remove_class("wrong")
        if name is not None:
            self.query_one(f"#w-{name}").add_class("wrong")
        self.query_one("#wrong", Static).update(what)

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        name = self.option_of(event.input)
        self.post_message(self.Changed(next(field for field in _LABELS if field == name), event.value))
