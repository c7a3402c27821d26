"""The options of a quantization, each in a line of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input, Label, Select, Static

from edgeq.quantize.methods import NAMED
from edgeq.recipe import BITS, CODEBOOK_GRIDS, FILE_TYPES, GROUP_SIZES, Recipe
from edgeq.tui.widgets.option_form import OptionForm

_TOGETHER = ("awq+gptq", "rotate+gptq", "rotate+awq+gptq")
_GRIDS = ("int", "affine", *CODEBOOK_GRIDS, *(name for name in FILE_TYPES if name.startswith("gguf-")))
_GROUPS = {size: "a whole row" if size == -1 else str(size) for size in GROUP_SIZES}
_SHIFT = {False: "zero points", True: "symmetric"}
_CHOICES: dict[str, dict[Any, str]] = {
    "method": {name: name for name in ("none", *NAMED, *_TOGETHER)},
    "grid": {name: name for name in _GRIDS},
    "bits": {n: str(n) for n in BITS},
    "group_size": _GROUPS,
    "symmetric": _SHIFT,
    "embed_bits": {n: str(n) for n in BITS},
}
_LABELS = {
    "method": ("method", "How the codes are chosen: rtn rounds to nearest; gptq, awq, autoround learn from text"),
    "grid": ("grid", "The values a weight may take: whole numbers, a codebook, or llama.cpp's types"),
    "bits": ("bits", "Of a weight: fewer are smaller and faster, and lose more"),
    "group_size": ("group", "Weights that share a scale: fewer are more exact and take more room"),
    "symmetric": ("range", "With zero points a group's range may lie anywhere; symmetric is around zero"),
    "embed_bits": ("embedding bits", "Of the table that turns words into numbers"),
    "calibration": ("text", "That a method learns from: self (the model writes it), a file, or hub:NAME"),
    "calibration_tokens": ("tokens of text", "In all"),
    "threads": ("threads", "Empty: all"),
    "out": ("folder", "Where the checkpoint will lie"),
}
_NUMBERS = ("calibration_tokens", "threads")


class RecipeForm(OptionForm):
    """Shows a recipe; says what a person changes in it."""

    PREFIX = "f-"

    class Changed(Message):
        """`name` is a field of the recipe, or `threads` or `out`; the value is as typed, checked by the core."""

        def __init__(self, name: str, value: Any) -> None:
            super().__init__()
            self.name, self.value = name, value

    def compose(self) -> ComposeResult:
        for name, (label, about) in _LABELS.items():
            with Horizontal(classes="field"):
                yield Label(label, classes="dim")
                yield from self._widget(name, about)
        yield Static("", id="wrong", markup=False)
        yield self.about_line()
        yield self.all_about((label, name) for name, (label, _) in _LABELS.items())

    def _widget(self, name: str, about: str) -> Iterator[Widget]:
        if name in _CHOICES:
            options = [(text, value) for value, text in _CHOICES[name].items()]
            yield Select(options, allow_blank=False, compact=True, id=f"f-{name}", tooltip=about)
        else:
            kind = "integer" if name in _NUMBERS else "text"
            usual = "all" if name == "threads" else ""
            yield Input(
                compact=True,
                id=f"f-{name}",
                type=kind,  # type: ignore[arg-type]
                placeholder=usual,
                select_on_focus=False,
                tooltip=about,
            )

    def show(self, recipe: Recipe, out: Path, threads: int | None) -> None:
        """Show these values; nothing is said of it."""
        values = {name: getattr(recipe, name, None) for name in _LABELS} | {"out": out, "threads": threads}
        with self.prevent(Select.Changed, Input.Changed):
            for name, value in values.items():
                widget = self.query_one(f"#f-{name}")
                if isinstance(widget, Select):
                    self._choose(widget, name, value)
                elif isinstance(widget, Input):
                    text = "" if value is None else str(value)
                    if widget.value != text and not widget.has_focus:
                        widget.value = text

    def _choose(self, widget: Select[Any], name: str, value: Any) -> None:
        if value not in _CHOICES[name]:  # one that a plan or a file named
            widget.set_options([(text, v) for v, text in ({value: str(value)} | _CHOICES[name]).items()])
        widget.value = value

    def wrong(self, name: str | None, what: str = "") -> None:
        """Mark the field that can't be so, and say why; None: all is well."""
        for field in self.query(".wrong"):
            field.remove_class("wrong")
        if name is not None:
            self.query_one(f"#f-{name}").add_class("wrong")
        self.query_one("#wrong", Static).update(what)

    def about(self, name: str) -> str:
        return _LABELS.get(name, ("", ""))[1]

    @on(Select.Changed)
    def _chosen(self, event: Select.Changed) -> None:
        event.stop()
        self._say(event.select.id, event.value)

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        self._say(event.input.id, event.value)

    def _say(self, widget_id: str | None, value: Any) -> None:
        name = str(widget_id).removeprefix("f-")
        if name in _NUMBERS:
            value = int(value) if str(value).isdecimal() else None
        self.post_message(self.Changed(name, value))
