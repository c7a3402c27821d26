"""Choose a device: this machine, one of the catalog, or a profile's file; what is typed narrows the list."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from edgeq.device.words import binary, quantity
from edgeq.errors import EdgeqError
from edgeq.tui.hints import in_app
from edgeq.tui.widgets.key_bar import KeyBar

if TYPE_CHECKING:
    from edgeq.device.catalog import Listed

HERE = "auto"
_FORMS = ("phone", "board", "handheld", "laptop", "desktop", "server")
_TITLES = {
    "phone": "Phones",
    "board": "Boards",
    "handheld": "Handhelds",
    "laptop": "Laptops",
    "desktop": "Desktops and their graphics cards",
    "server": "Servers",
}


class DevicePicker(ModalScreen[str | None]):
    """Gives the chosen device's name, `auto`, or a file; None: it stays as it was."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Close", key_display="esc"),
        Binding("down", "move(1)", "Down", show=False, priority=True),
        Binding("up", "move(-1)", "Up", show=False, priority=True),
        Binding("enter", "choose", "Choose", key_display="⏎", priority=True),
    ]

    def __init__(self, present: str) -> None:
        super().__init__()
        self._present = present
        self._catalog: list[Listed] = []

    def compose(self) -> ComposeResult:
        with Vertical(id="picker"):
            yield Static("Which device will run the model?", classes="title")
            yield Input(placeholder="Type to search, or the path of a profile (FILE.json)", id="wanted", compact=True)
            yield OptionList(id="devices")
            yield Static("", id="picker-problem", markup=False)
        yield KeyBar()

    def on_mount(self) -> None:
        from edgeq.device.catalog import listed

        self._catalog = listed()
        self._list("")

    @on(Input.Changed, "#wanted")
    def _typed(self, event: Input.Changed) -> None:
        self._say("")
        self._list(event.value)

    def _list(self, wanted: str) -> None:
        words = wanted.lower().split()
        options = [] if words else [Option("This machine", id=HERE)]
        for form in _FORMS:
            found = [one for one in self._catalog if one.form == form and _matches(one, words)]
            if found:
                options += [Option(_TITLES[form], disabled=True), *(Option(_line(one), id=one.ref) for one in found)]
        if words and not options:
            options = [Option("Nothing of that name is known: Enter takes it as a file", disabled=True)]
        devices = self.query_one(OptionList)
        devices.clear_options()
        devices.add_options(options)
        at = next((i for i, o in enumerate(options) if o.id == self._present), None)
        devices.highlighted = at if at is not None else next((i for i, o in enumerate(options) if o.id), None)

    def action_move(self, by: int) -> None:
        devices = self.query_one(OptionList)
        devices.action_cursor_down() if by > 0 else devices.action_cursor_up()

    @on(OptionList.OptionSelected)
    def _clicked(self) -> None:
        self.action_choose()

    def action_choose(self) -> None:
        from edgeq.device.load_ref import HINT, load_device

        devices, typed = self.query_one(OptionList), self.query_one(Input).value.strip()
        at = devices.highlighted
        ref = typed if at is None else devices.get_option_at_index(at).id or typed
        if not ref:
            return
        try:
            if ref != HERE:
                load_device(ref)
        except EdgeqError as error:
            self._say(f"{error.what}. {in_app(error.hint or HINT)}")
            return
        self.dismiss(ref)

    def _say(self, what: str) -> None:
        self.query_one("#picker-problem", Static).update(what)


def _matches(one: Listed, words: list[str]) -> bool:
    text = f"{one.ref} {one.name} {one.form}".lower()
    return all(word in text for word in words)


def _line(one: Listed) -> str:
    rate = "speed unknown" if one.bandwidth is None else quantity(one.bandwidth)
    return f"  {_cut(one.name, 34):34}  {binary(one.memory_bytes):>8}  {rate:>13}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
