"""The step chat: talk with what was made and, beside it, with the model that it was made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import ContentSwitcher, Input, Static

from edgeq.errors import EdgeqError
from edgeq.journey import Step
from edgeq.tui.hints import in_app
from edgeq.tui.screens.step import StepScreen
from edgeq.tui.widgets.transcript import Pane, Transcript

if TYPE_CHECKING:
    from edgeq.jobs.original import Original
    from edgeq.tui.chatting import Chatting

LOOK_S = 0.1  # between two looks at what was said: few drawings, since they take processor time that the model wants
ASK, PLAIN = "A message", "The beginning of a text"


class ChatScreen(StepScreen):
    STEP: ClassVar[Step] = "chat"
    CSS_PATH = "../styles/chat.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]  # noqa: RUF012
    HELP = """
Talk with the quantized model, here on this machine. **o** loads the original beside it: both are asked the same, one
after the other, so that neither slows the other down. Both take the likeliest token each time, so the first place where
they differ, marked **≠**, is where quantizing changed a choice. Another wording need not be a worse one.

While you write, letters are text: **esc** leaves the line (or stops an answer), **i** or enter goes back to it.
**e** changes the temperature, **f** takes the next artifact, **v** shows the other side where only one fits,
page up and down scroll.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", "Stop", key_display="esc", tooltip="End the answer"),
        Binding("escape", "leave", "Keys", key_display="esc", tooltip="Leave the line, so that letters are keys"),
        Binding("i,enter", "write", "Write", key_display="i", tooltip="Go to the line"),
        Binding("o", "original", "Original", tooltip="The original beside it, or away"),
        Binding("v", "other", "Other side", tooltip="Show the other one"),
        Binding("f2", "other", "Other side", tooltip="Show the other one"),
        Binding("r", "anew", "New", tooltip="A new conversation"),
        Binding("e", "warmer", "Temperature", show=False),
        Binding("f", "artifact", "Other artifact", show=False),
        Binding("pageup", "scroll(-1)", show=False),
        Binding("pagedown", "scroll(1)", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._chatting: Chatting | None = None
        self._told: EdgeqError | None = None
        self._shown_state: object = None

    def body(self) -> ComposeResult:
        with ContentSwitcher(initial="thinking"):
            yield Static("", id="thinking")
            with Vertical(id="talk"):
                with Horizontal(id="panes"):
                    yield Pane("quantized")
                    yield Pane("original")
                yield Input(id="message")

    def enter(self) -> None:
        from edgeq.tui.chatting import chatting_of

        self.say("Looking for the fastest artifact ...")

        def look() -> Chatting | EdgeqError:
            try:
                return chatting_of(self.road)
            except EdgeqError as error:
                return error

        self.think(look, self._found_it)

    def _found_it(self, chatting: Chatting | EdgeqError) -> None:
        if isinstance(chatting, EdgeqError):
            place = f" ({chatting.where})" if chatting.where else ""
            self.problem(f"{chatting.what}{place}", chatting.hint or "")
            self.say("Without an artifact there is no chat: press 5 to export one.")
            return
        self._chatting = chatting
        self.road.talk(chatting)
        if chatting.talk.partners["quantized"].state in ("off", "failed"):
            self._try(chatting.begin)
        self.query_one(ContentSwitcher).current = "talk"
        self.query_one("#message", Input).focus()
        self._draw()
        self.set_interval(LOOK_S, self._look)

    # What is seen.

    def _look(self) -> None:
        if self._chatting is not None and self._chatting.talk.take():
            self._draw()

    def _draw(self) -> None:
        chatting = self._chatting
        if chatting is None:
            return
        self.set_class(chatting.comparing, "two")
        self.set_class(chatting.shown == "original", "second")
        for pane in self.query(Pane):
            pane.show(chatting)
        ready = chatting.talk.partners["quantized"].ready
        plain = ready is not None and not ready.template
        self.query_one("#message", Input).placeholder = f"{PLAIN if plain else ASK} ({chatting.sampling_words})"
        self._tell_failure(chatting)
        self._follow_state()

    def _tell_failure(self, chatting: Chatting) -> None:
        """What ended a side's process is said once, with the way out."""
        found = [(s, p.error) for s, p in chatting.talk.partners.items() if p.state == "failed" and p.error is not None]
        error = found[0][1] if found else None
        if error is self._told:
            return
        self._told = error
        if error is None:
            self.problem("")
            return
        again = {"quantized": "r, to load it again, or 5, to export another", "original": "o, to load it again"}
        way_out = f"Press esc, then {again[found[0][0]]}"
        place = f" ({error.where})" if error.where else ""
        self.problem(f"{error.what}{place}", ". ".join(filter(None, [in_app(error.hint or ""), way_out])))

    def _guide(self) -> None:
        chatting = self._chatting
        if chatting is None:
            return
        self.say(chatting.guide(writing=self._writing, narrow=self.has_class("-narrow")))

    @property
    def _writing(self) -> bool:
        return isinstance(self.focused, Input)

    def on_descendant_focus(self, _: events.DescendantFocus) -> None:
        self._follow_state()

    def _follow_state(self) -> None:
        """The sentence and the keys, where they may be others than before: a footer is made anew each time."""
        chatting = self._chatting
        if chatting is None:
            return
        states = [(p.state, p.ready is not None) for p in chatting.talk.partners.values()]
        now = (
            chatting.talk.answering,
            chatting.talk.busy,
            states,
            self._writing,
            chatting.at,
            self.has_class("-narrow"),
        )
        if now != self._shown_state:
            self._shown_state = now
            self._guide()
            self.refresh_bindings()

    # Keys.

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        chatting = self._chatting
        if chatting is None:
            return action not in _OWN
        two = chatting.comparing
        can = {
            "stop": chatting.talk.busy,
            "leave": self._writing and not chatting.talk.busy,
            "write": not self._writing,
            "original": chatting.model is not None and not chatting.talk.busy,
            "anew": not chatting.talk.busy,
            "other": two and self.has_class("-narrow"),
            "artifact": len(chatting.choices) > 1,
        }
        return can.get(action, True)

    def action_stop(self) -> None:
        if self._chatting is not None:
            self._chatting.talk.stop()
            self._draw()

    def action_leave(self) -> None:
        self._shown_pane.focus()

    def action_write(self) -> None:
        self.query_one("#message", Input).focus()

    @property
    def _shown_pane(self) -> Transcript:
        shown = next(pane for pane in self.query(Pane) if pane.display)
        return shown.query_one(Transcript)

    def action_scroll(self, pages: int) -> None:
        for pane in self.query(Transcript):
            if pages < 0:
                pane.scroll_page_up()
            else:
                pane.scroll_page_down()

    def action_other(self) -> None:
        if self._chatting is not None:
            self._chatting.shown = "original" if self._chatting.shown == "quantized" else "quantized"
            writing = self._writing
            self._draw()
            if not writing:
                self._shown_pane.focus()

    def action_warmer(self) -> None:
        if self._chatting is not None:
            self._chatting.warmer()
            self.notify(f"From now on: {self._chatting.sampling_words}")
            self._draw()

    @on(Input.Submitted, "#message")
    def _asked(self, event: Input.Submitted) -> None:
        text = event.value.strip()
        if self._chatting is None or not text:
            return
        if self._chatting.talk.busy:
            self.notify("An answer is still being given: esc stops it")
            return
        if self._chatting.talk.partners["quantized"].state == "failed":
            self.notify("The quantized model is not loaded: esc, then r, loads it again", severity="warning")
            return
        self._chatting.talk.ask(text)
        event.input.clear()
        self._draw()

    def action_anew(self) -> None:
        chatting = self._chatting
        if chatting is None:
            return
        if chatting.talk.partners["quantized"].state == "failed":
            self._try(chatting.begin)  # and the conversation goes on
        else:
            chatting.talk.clear()
        self._draw()
        self.action_write()

    def action_artifact(self) -> None:
        chatting = self._chatting
        if chatting is not None and len(chatting.choices) > 1:
            self._try(chatting.another)
            self._draw()

    def action_original(self) -> None:
        from edgeq.tui.chatting import original_for

        chatting = self._chatting
        if chatting is None:
            return
        self.problem("")
        if chatting.comparing and chatting.talk.partners["original"].state != "failed":
            chatting.shown = "quantized"
            chatting.talk.close("original")
            self._draw()
        else:
            self.think(lambda: original_for(self.road, chatting), self._open_original, "original")

    def _open_original(self, original: Original) -> None:
        chatting = self._chatting
        if chatting is not None:
            chatting.original = original
            what, options = {"model": original.model}, {"context": original.context}
            self._try(lambda: chatting.talk.open("original", what, options))
            self._draw()

    def _try(self, begin: Callable[[], None]) -> None:
        try:
            begin()
        except EdgeqError as error:
            self.problem(error.what, error.hint or "")


_OWN = {"stop", "leave", "write", "original", "other", "anew", "warmer", "artifact", "scroll"}
