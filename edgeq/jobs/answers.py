"""What was asked and answered in a chat, where two answers part, and both in words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from edgeq.errors import EdgeqError
from edgeq.jobs.chat import Done, Piece

Side = Literal["quantized", "original"]
_ENDS = {
    "cancelled": "stopped",
    "length": "cut off at the limit",
    "context": "cut off: the context is full",
}


@dataclass
class Answer:
    """Attributes:
    ends: text length and number of tokens after each piece.
    """

    text: str = ""
    ends: dict[int, int] = field(default_factory=dict)
    done: Done | None = None
    error: EdgeqError | None = None

    def add(self, piece: Piece) -> None:
        self.text += piece.text
        self.ends[len(self.text)] = piece.tokens

    @property
    def tokens(self) -> int:
        return next(reversed(self.ends.values()), 0)

    @property
    def over(self) -> bool:
        return self.done is not None or self.error is not None

    @property
    def whole(self) -> bool:
        """It ended of its own accord."""
        return self.done is not None and self.done.finish not in _ENDS


@dataclass
class Turn:
    """Attributes:
    greedy: its answers may be compared: each takes the likeliest token.
    apart: earlier answers differed already, so the two have another conversation behind them.
    """

    question: str
    greedy: bool = True
    apart: bool = False
    answers: dict[Side, Answer] = field(default_factory=dict)

    @property
    def parting(self) -> Parting | None:
        """None: there are no two answers that can be compared."""
        one, other = self.answers.get("quantized"), self.answers.get("original")
        return parting(one, other) if self.greedy and one is not None and other is not None else None


@dataclass(frozen=True, slots=True)
class Parting:
    """Attributes:
    tokens: that both answers begin with.
    at: length of their text, whole pieces only.
    differ: what follows is not the same; else it is the same as far as both go.
    equal: both ended, and are the same to the end.
    """

    tokens: int
    at: int
    differ: bool
    equal: bool

    @property
    def words(self) -> str:
        count = "1 token" if self.tokens == 1 else f"{self.tokens} tokens"
        if self.equal:
            return f"The same to the end: {count}"
        if not self.differ:
            return f"The same for {count} so far" if self.tokens else ""
        return f"The same for {count}, then they differ" if self.tokens else "They differ from the first token"


def parting(one: Answer, other: Answer) -> Parting:
    """Where two answers, finished or not, begin to differ."""
    shorter = min(len(one.text), len(other.text))
    common = next((i for i in range(shorter) if one.text[i] != other.text[i]), shorter)
    shared = one.ends.keys() & other.ends.keys()
    at = max((end for end in shared if end <= common), default=0)
    ran_on = any(a.whole and len(b.text) > len(a.text) for a, b in ((one, other), (other, one)))
    differ = common < shorter or (ran_on and one.text != other.text)
    equal = one.over and other.over and one.text == other.text
    return Parting(one.ends.get(at, 0), at, differ, equal)


def line(done: Done) -> str:
    """`31 tokens/s · first token 0.20 s · 54 tokens`, and why it ended where that was not of its own accord."""
    speed = [f"{done.tps:,.{0 if done.tps >= 10 else 1}f} tokens/s"] if done.tps else []
    first = [f"first token {done.ttft_s:.{1 if done.ttft_s >= 0.1 else 2}f} s"] if done.tokens else []
    count = "1 token" if done.tokens == 1 else f"{done.tokens} tokens"
    return " · ".join([*speed, *first, count, *([_ENDS[done.finish]] if done.finish in _ENDS else [])])
