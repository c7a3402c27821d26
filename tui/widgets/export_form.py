"""The options of an exporter, as the exporter itself lists them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Input, Label, Select

from edgeq.tui.widgets.option_form import OptionForm

if TYPE_CHECKING:
    from edgeq.tui.exporting import Exporting

_ABOUT = {
    "accuracy_level": "4 multiplies in 8-bit integers, 0 in float32: slow",
    "activation_scales": "8-bit activations: one scale a token, or faster and coarser a tensor",
    "context": "Longest sequence to prepare for; empty: the model's",
    "device": "Whose limits are checked before anything is written",
    "dialect": "contrib: onnxruntime's fused operators; standard: ONNX's own alone, for any runtime",
    "dtype": "onnx: float16 for devices that compute in it; gguf: auto keeps an unquantized model's 16 bits",
    "dynamic_quantization": "Channels that share a scale where inputs are rounded to 8 bits; 0: not rounded",
    "format": "onnx; ort: one file below 2 GiB for onnxruntime's minimal builds",
    "kv_dtype": "How the KV cache, the model's memory of the conversation, is kept",
    "kv_buffer": "Of standard operators: growing (copied, runs anywhere), or shared (in place, opset 24)",
    "kv_text": "A file that an integer cache's ranges are taken from; empty: edgeq's passages",
    "pack": "fast: on integer kernels where one holds the same numbers; small: fewer bytes",
    "ternary_type": "tq2_0 is fast, tq1_0 smaller",
}
_OUT = "Where the artifact will lie"
_NUMBERS = ("context", "dynamic_quantization")
_DEFAULT = "default"


class ExportForm(OptionForm):
    """Shows an exporter's options; says what a person changes in them. An exporter's own that edgeq has no word for
    is shown by its name."""

    PREFIX = "x-"

    class Changed(Message):
        """`name` is an option, or `out`; a value of None is the default."""

        def __init__(self, name: str, value: Any) -> None:
            super().__init__()
            self.name, self.value = name, value

    async def show(self, exporting: Exporting) -> None:
        """Build the fields of this exporter."""
        async with self.batch():
            await self.remove_children()
            names = [*((name.replace("_", " "), name) for name in exporting.way.options), ("folder", "out")]
            await self.mount_all([*self._fields(exporting), self.about_line(), self.all_about(names)])

    def about(self, name: str) -> str:
        return _OUT if name == "out" else _ABOUT.get(name, "")

    def _fields(self, exporting: Exporting) -> list[Horizontal]:
        way = exporting.way
        made, widest = [], max(map(len, (*way.options, "folder"))) + 2
        for name in way.options:
            value, about = exporting.options.get(name), _ABOUT.get(name, "")
            label = _label(name, widest)
            if name in way.choices:
                made.append(Horizontal(label, _select(name, way.choices[name], value, about), classes="field"))
            else:
                made.append(Horizontal(label, _input(name, value, about), classes="field"))
        out = _input("out", exporting.out, _OUT)
        made.append(Horizontal(_label("folder", widest), out, classes="field"))
        return made

    @on(Select.Changed)
    def _chosen(self, event: Select.Changed) -> None:
        event.stop()
        value = None if event.value == _DEFAULT else event.value
        self.post_message(self.Changed(self.option_of(event.select), value))

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        name, value = self.option_of(event.input), event.value.strip()
        typed: Any = int(value) if name in _NUMBERS and value.isdecimal() else value or None
        self.post_message(self.Changed(name, typed))

    def compose(self) -> ComposeResult:
        return iter(())


def _label(name: str, width: int) -> Label:
    label = Label(name.replace("_", " "), classes="dim")
    label.styles.width = width
    return label


def _select(name: str, choices: list[Any], value: Any, about: str) -> Select[Any]:
    first, *others = choices
    usual = "default" if first is None else f"{first}, the default"
    options: list[tuple[str, Any]] = [(usual, _DEFAULT), *((str(c), c) for c in others)]
    shown = value if value in others else _DEFAULT
    return Select(options, value=shown, allow_blank=False, compact=True, id=f"x-{name}", tooltip=about)


def _input(name: str, value: Any, about: str) -> Input:
    text = "" if value is None else str(value)
    return Input(text, compact=True, placeholder=about, select_on_focus=False, id=f"x-{name}", tooltip=about)
