"""The step model: one list of all models at hand, narrowed by what is typed, and each at a glance on this device."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.timer import Timer
from textual.widgets import Input, OptionList

from edgeq.errors import EdgeqError
from edgeq.journey import Step
from edgeq.tui.hints import in_app
from edgeq.tui.screens.step import StepScreen
from edgeq.tui.widgets.model_glance import ModelGlance
from edgeq.tui.widgets.model_list import ModelList

if TYPE_CHECKING:
    from edgeq.device.spec import Device
    from edgeq.plan.glance import Glance
    from edgeq.tui.choosing import Entry

_LOOK_S = 0.12  # the cursor rests so long before a model is read
_SEARCH_S = 0.5  # no key so long before the hub is asked
_AT_ONCE = 6  # models that are marked in one go


class ModelScreen(StepScreen):
    STEP: ClassVar[Step] = "model"
    CSS_PATH = "../styles/model.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]  # noqa: RUF012
    HELP = """
A model's **weights** are the numbers it learned. Published at 16 bits each, they can be stored with 8 or 4 and lose
little: that is what edgeq makes. Beside them a model keeps the conversation in its **KV cache**, which grows with the
context. **At most** is how fast this device can write, whatever the software: its memory is read once a token.

Type (`/`) to search, on the hub too, or give a folder, a .gguf file or a hub id. A **size** such as 7B plans without
choosing yet. edgeq runs no code that comes with a model: where it doesn't know an architecture it can only estimate,
and a `!` says so.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "choose", "Choose", key_display="⏎", tooltip="Take the marked model, and plan", priority=True),
        # Before the list hears of it: what is typed next goes to the field, however fast.
        Binding("slash", "search", "Search", key_display="/", tooltip="Search the hub too; or a path", priority=True),
        Binding("escape", "leave", "List", key_display="esc", tooltip="Back to the list"),
        Binding("down", "move('down')", "Down", show=False, priority=True),
        Binding("up", "move('up')", "Up", show=False, priority=True),
        Binding("pagedown", "move('page_down')", "Page down", show=False, priority=True),
        Binding("pageup", "move('page_up')", "Page up", show=False, priority=True),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._entries: list[Entry] = []
        self._hub: list[Entry] = []
        self._device: Device | None = None
        self._seen: dict[str, Glance] = {}
        self._looking_for: Entry | None = None
        self._pause: Timer | None = None
        self._asking: Timer | None = None
        self._taking = False

    def body(self) -> ComposeResult:
        with Horizontal(id="choice"):
            with Vertical(id="left"):
                yield Input(placeholder="/ to search, or type a path or hub id", id="wanted", compact=True)
                yield ModelList(id="models")
            with VerticalScroll(id="right", can_focus=False):
                yield ModelGlance("", id="glance")

    def enter(self) -> None:
        from edgeq.tui.choosing import entries_of

        self.say("Looking for models on this machine ...")
        self.set_focus(self.query_one(ModelList))
        self.think(lambda: entries_of(self.road), self._listed)
        self.think(self.road.device, self._device_known, "device")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        writing = self.focused is not None and self.focused.id == "wanted"
        return {"search": not writing, "leave": writing}.get(action, True)

    # The list.

    def _listed(self, entries: list[Entry]) -> None:
        self._entries = entries
        self._show_list()
        self._guide()
        self._mark()

    def _device_known(self, device: Device) -> None:
        self._device = device
        self._look()
        self._mark()

    def _guide(self) -> None:
        where = "this machine" if self.journey.device == "auto" else "the device"
        self.say(f"Choose with ↑ ↓ and enter; ✓ fits {where} at 4 bits. Press / to search.")

    def _mark(self) -> None:
        """Say of the known models which fit, a few at a time."""
        from edgeq.tui.choosing import marks_of

        models, device = self.query_one(ModelList), self._device
        refs = [e.ref for e in self._entries if e.quick and e.ref not in models.marks]
        if device is not None and refs:
            self.think(lambda: marks_of(device, refs[:_AT_ONCE]), self._marked, "marks")

    def _marked(self, marks: dict[str, tuple[bool, str]]) -> None:
        models = self.query_one(ModelList)
        models.mark(marks)
        if marks:
            self._mark()

    def _show_list(self) -> None:
        self.query_one(ModelList).show(self._entries, self._hub, self.query_one(Input).value.strip())

    @on(Input.Changed, "#wanted")
    def _typed(self, event: Input.Changed) -> None:
        from edgeq.tui.choosing import worth_asking

        self.problem("")
        self._hub = []
        self._show_list()
        if self._asking is not None:
            self._asking.stop()
        if worth_asking(event.value.strip()):
            self._asking = self.set_timer(_SEARCH_S, self._ask_hub)
        else:
            self.query_one(ModelList).note = ""

    def _ask_hub(self) -> None:
        from edgeq.tui.choosing import on_hub

        text, models = self.query_one(Input).value.strip(), self.query_one(ModelList)

        def ask() -> tuple[list[Entry], str]:
            try:
                return on_hub(text), ""
            except EdgeqError as error:
                return [], f"{error.what[:1].upper()}{error.what[1:]}"

        models.note = "Asking the hub ..."
        self._show_list()
        self.think(ask, self._answered, "hub")

    def _answered(self, found: tuple[list[Entry], str]) -> None:
        self._hub, why = found
        models = self.query_one(ModelList)
        models.note = why or ("" if self._hub else "The hub has nothing of that name")
        self._show_list()

    def action_search(self) -> None:
        self.set_focus(self.query_one(Input))

    def action_leave(self) -> None:
        self.set_focus(self.query_one(ModelList))

    def action_move(self, how: str) -> None:
        models = self.query_one(ModelList)
        moves: dict[str, Callable[[], None]] = {
            "down": models.action_cursor_down,
            "up": models.action_cursor_up,
            "page_down": models.action_page_down,
            "page_up": models.action_page_up,
        }
        moves[how]()

    # The model under the cursor.

    @on(OptionList.OptionHighlighted, "#models")
    def _rests(self) -> None:
        self._taking = False
        if self._pause is not None:
            self._pause.stop()
        self._pause = self.set_timer(_LOOK_S, self._look)

    def _look(self) -> None:
        from edgeq.tui.choosing import glance_of

        entry, device = self.query_one(ModelList).chosen, self._device
        if entry is None or device is None:
            return
        self._looking_for = entry
        if entry.ref in self._seen:
            self._show_glance(self._seen[entry.ref])
            return
        self.query_one(ModelGlance).waiting(entry.title)

        def look() -> Glance | EdgeqError:
            try:
                return glance_of(device, entry)
            except EdgeqError as error:
                return error

        self.think(look, self._looked, "glance")

    def _looked(self, found: Glance | EdgeqError) -> None:
        entry = self._looking_for
        if entry is None:
            return
        if isinstance(found, EdgeqError):
            self.query_one(ModelGlance).failed(entry.title, in_app(found.what), in_app(found.hint or ""))
        else:
            self._seen[entry.ref] = found
            self._show_glance(found)

    def _show_glance(self, seen: Glance) -> None:
        entry = self._looking_for
        assert entry is not None
        self.query_one(ModelGlance).show(entry.title, seen, entry.where)

    # The choice.

    @on(OptionList.OptionSelected, "#models")
    def _clicked(self) -> None:
        self.action_choose()

    def action_choose(self) -> None:
        from edgeq.tui.choosing import chosen

        entry = self.query_one(ModelList).chosen
        if entry is None or self._taking:
            return
        self.problem("")
        self.say(f"Reading {entry.title} ...")
        self._taking = True

        def take() -> str | EdgeqError:
            try:
                return chosen(entry, lambda what: self.app.call_from_thread(self.say, f"{what} ..."))
            except EdgeqError as error:
                return error

        self.think(take, self._taken, "take")

    def _taken(self, found: str | EdgeqError) -> None:
        self._taking = False
        if isinstance(found, EdgeqError):
            place = f" ({found.where})" if found.where else ""
            self.problem(f"{found.what}{place}", found.hint or "")
            self.say("That one can't be taken: choose another, or type / and its path or hub id.")
            return
        self.become(self.journey.with_model(found))
        self.go("plan")
