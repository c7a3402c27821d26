"""One side of a chat: who it is, what was asked, what it answered; where the other side's answer parts from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.containers import Container, Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from edgeq.jobs.answers import Answer, Parting, Turn, line

if TYPE_CHECKING:
    from edgeq.jobs.answers import Side
    from edgeq.tui.chatting import Chatting

SIGN = "≠"
_MARKED = 24  # characters at most


class Pane(Vertical):
    """Who it is, above what was said."""

    def __init__(self, side: Side) -> None:
        super().__init__(id=side)
        self.side: Side = side

    def compose(self) -> ComposeResult:
        with Container(classes="head"):
            yield Static("", classes="who", markup=False)
            yield Static("", classes="facts dim", markup=False)
        yield Transcript(self.side)

    def show(self, chatting: Chatting) -> None:
        self.query_one(".who", Static).update(chatting.title(self.side))
        self.query_one(".facts", Static).update(chatting.facts(self.side))
        self.query_one(Transcript).show(chatting)


class Transcript(VerticalScroll):
    """`show` brings it up to date; only what changed is drawn anew."""

    def __init__(self, side: Side) -> None:
        super().__init__()
        self.side: Side = side
        self._lines: list[Static] = []  # three a turn: asked, answered, how fast
        self._drawn: list[Content] = []
        self._following = True  # the end is in sight, and stays so until the person scrolls away

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._following = self.is_vertical_scroll_end

    def on_resize(self) -> None:
        if self._following:
            self.scroll_end(animate=False)

    def show(self, chatting: Chatting) -> None:
        settled = max(0, len(self._drawn) // 3 - 1)  # of earlier turns nothing changes
        contents = self._drawn[: 3 * settled] if chatting.talk.turns else []
        contents = [*contents, *(c for turn in chatting.talk.turns[settled:] for c in self._turn(turn, chatting))]
        for gone in self._lines[len(contents) :]:
            gone.remove()
        fresh = [Static(c, classes=_CLASSES[i % 3]) for i, c in enumerate(contents) if i >= len(self._lines)]
        for at, content in enumerate(contents[: len(self._lines)]):
            if content != self._drawn[at]:
                self._lines[at].update(content)
        self._lines, self._drawn = [*self._lines[: len(contents)], *fresh], contents
        if fresh:
            self.mount(*fresh)
        if self._following or fresh:
            self.scroll_end(animate=False)

    def _turn(self, turn: Turn, chatting: Chatting) -> tuple[Content, Content, Content]:
        answer = turn.answers.get(self.side)
        parted = turn.parting
        asked = Content.assemble(("You: ", "bold"), turn.question)
        last = turn is chatting.talk.turns[-1]
        return asked, _answered(answer, parted), Content(self._below(turn, parted, chatting, last))

    def _below(self, turn: Turn, parted: Parting | None, chatting: Chatting, last: bool) -> str:
        talk, answer = chatting.talk, turn.answers.get(self.side)
        if answer is None:
            if not last or self.side not in talk.waiting:
                return "(not asked)"
            if talk.partners[self.side].state == "opening":
                return "answers once it is loaded"
            return "answers next: two at once would slow each other"
        if answer.error is not None:
            return f"✗ {answer.error.line}"
        said = parted.words if parted is not None and (answer.over or parted.differ) else ""
        if said and turn.apart:
            said += "; their conversations differed before"
        if answer.done is None:
            now = f"writing, {answer.tokens} tokens" if answer.tokens else "reading"
            return "\n".join(filter(None, [now, said]))
        return "\n".join(filter(None, [line(answer.done), said]))


_CLASSES = ("asked", "answered", "below")


def _answered(answer: Answer | None, parted: Parting | None) -> Content:
    if answer is None:
        return Content("")
    text = answer.text
    if parted is None or not parted.differ:
        return Content(text.strip("\n"))
    before, after = text[: parted.at], text[parted.at :]
    space = len(after) - len(after.lstrip())
    word = after[space : space + _MARKED].split(maxsplit=1)[:1]
    marked = word[0] if word else ""
    rest = after[space + len(marked) :]
    return Content.assemble(
        before.lstrip("\n") + after[:space], (SIGN, "bold"), (marked, "bold underline"), rest.rstrip("\n")
    )
