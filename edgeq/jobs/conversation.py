"""A conversation with a quantized model and, where wanted, with its original beside it: asked the same, the same way.

They answer one after the other, since two at once would halve each other's speed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from edgeq.errors import EdgeqError
from edgeq.jobs.answers import Answer, Side, Turn
from edgeq.jobs.chat import Chat, Done, Failed, News, Piece, Ready, Sampling

State = Literal["off", "opening", "ready", "failed"]


class Talker(Protocol):
    """What `edgeq.jobs.chat.Chat` does."""

    def send(self, messages: list[dict[str, str]], sampling: Sampling) -> None: ...
    def stop(self) -> None: ...
    def reset(self) -> None: ...
    def news(self) -> list[News]: ...
    def close(self) -> None: ...


Begin = Callable[[Mapping[str, str], Mapping[str, Any]], Talker]


@dataclass
class Partner:
    """One of the two, and its process.

    Attributes:
        error: why there is no session, where its state is `failed`.
    """

    state: State = "off"
    talker: Talker | None = None
    ready: Ready | None = None
    error: EdgeqError | None = None

    def close(self) -> None:
        talker, self.talker = self.talker, None
        self.state, self.ready, self.error = "off", None, None
        if talker is not None:
            talker.close()


class Conversation:
    """Attributes:
    turns: what was asked and answered, latest last.
    sampling: of the next answers.
    """

    def __init__(self, begin: Begin = Chat) -> None:
        self._begin = begin
        self.partners: dict[Side, Partner] = {"quantized": Partner(), "original": Partner()}
        self.turns: list[Turn] = []
        self.sampling = Sampling()
        self.waiting: list[Side] = []  # to answer the last turn, the one at it first
        self._at_it: Side | None = None

    @property
    def answering(self) -> Side | None:
        """Who is giving an answer now."""
        return self._at_it

    @property
    def busy(self) -> bool:
        """An answer is being given or waited for. An original that is still loading keeps nobody waiting."""
        soon = (s == "quantized" or self.partners[s].state == "ready" for s in self.waiting)
        return self._at_it is not None or any(soon)

    @property
    def sides(self) -> list[Side]:
        return [side for side, partner in self.partners.items() if partner.state != "off"]

    def open(self, side: Side, what: Mapping[str, str], options: Mapping[str, Any] | None = None) -> None:
        """Begin its process; it is ready once `take` has seen so.

        Raises:
            EdgeqError: the system can't begin a process.
        """
        self.close(side)
        self.partners[side] = Partner("opening", self._begin(what, options or {}))
        if side == "original" and self.turns and side not in self.turns[-1].answers:
            self.waiting.append(side)  # what was asked last is compared at once

    def close(self, side: Side | None = None) -> None:
        """End one's process, or both."""
        for one in self.partners if side is None else (side,):
            self._drop(one)
            self.partners[one].close()
        self._go_on()

    def ask(self, text: str) -> None:
        """The person's turn: all that are there answer it, in turn."""
        if self.busy:
            raise EdgeqError("an answer is still being given", hint="Stop it first")
        before = self.turns[-1] if self.turns else None
        apart = before is not None and (before.apart or (before.parting is not None and before.parting.differ))
        self.turns.append(Turn(text, self.sampling.temperature == 0, apart))
        self.waiting = [s for s in self.sides if self.partners[s].state != "failed"]
        self._go_on()

    def stop(self) -> None:
        """End the answer that is being given, and ask nobody else for one."""
        self.waiting = [side for side in self.waiting if side == self._at_it]
        if self._at_it is not None and (talker := self.partners[self._at_it].talker) is not None:
            talker.stop()

    def clear(self) -> None:
        """A new conversation."""
        self.stop()
        self.turns, self.waiting, self._at_it = [], [], None
        for partner in self.partners.values():
            if partner.talker is not None and partner.state == "ready":
                partner.talker.reset()

    def take(self) -> bool:
        """Take in what was told since the last call; whether there was anything."""
        told = False
        for side, partner in self.partners.items():
            for news in partner.talker.news() if partner.talker is not None else ():
                told = True
                self._hear(side, partner, news)
        if told:
            self._go_on()
        return told

    def _hear(self, side: Side, partner: Partner, news: News) -> None:
        answer = self.turns[-1].answers.get(side) if self._at_it == side else None
        if isinstance(news, Ready):
            partner.state, partner.ready = "ready", news
        elif isinstance(news, Piece):
            if answer is not None:
                answer.add(news)
        elif isinstance(news, Done):
            if answer is not None:
                answer.done = news
            self._drop(side)
        else:
            self._fail(side, partner, news, answer)

    def _fail(self, side: Side, partner: Partner, news: Failed, answer: Answer | None) -> None:
        if answer is not None:
            answer.error = news.error
        if news.fatal:
            partner.close()
            partner.state, partner.error = "failed", news.error
        self._drop(side)

    def _drop(self, side: Side) -> None:
        self.waiting = [s for s in self.waiting if s != side]
        if self._at_it == side:
            self._at_it = None

    def _go_on(self) -> None:
        """Ask the next one, if nobody is at it and it is ready."""
        if self._at_it is not None or not self.waiting:
            return
        side = self.waiting[0]
        partner = self.partners[side]
        if partner.state == "ready" and partner.talker is not None:
            self._at_it = side
            partner.talker.send(list(self.messages(side)), self.sampling)
            self.turns[-1].answers[side] = Answer()

    def messages(self, side: Side) -> Iterable[dict[str, str]]:
        """The conversation as this one knows it; where it was not there, as the other one does."""
        for turn in self.turns[:-1]:
            given = turn.answers.get(side) or next(iter(turn.answers.values()), None)
            if given is not None and given.text:
                yield {"role": "user", "content": turn.question}
                yield {"role": "assistant", "content": given.text}
        yield {"role": "user", "content": self.turns[-1].question}
