"""What is told while artifacts are measured: how far it is, the speed now, what came out so far."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from statistics import median
from typing import Any, Protocol

from edgeq.errors import EdgeqError
from edgeq.jsonable import from_json
from edgeq.measure.process import Event
from edgeq.registry import Progress


class Live(Protocol):
    """A `Progress` that takes further facts, several times a second: `live(3, 24, "decode 128", tokens_per_s=31.0)`."""

    def __call__(self, done: int, total: int, what: str, **more: Any) -> None: ...


@dataclass(frozen=True, slots=True)
class SoFar:
    """One figure of one artifact, while it is measured.

    Attributes:
        artifact: its number in the run, from 0.
        phase, tokens: `decode` of so many new tokens, or `prefill` of so many of a prompt.
        tokens_per_s: the median of `reps` repetitions.
    """

    artifact: int
    phase: str
    tokens: int
    tokens_per_s: float
    reps: int


@dataclass(frozen=True, slots=True)
class Now:
    """What a measurement is at.

    Attributes:
        artifact, name: which one of the run.
        phase, tokens: `decode` of so many new tokens, or `prefill` of so many of a prompt.
        rep: of `reps` repetitions of this round; 0: the warm-up.
        tokens_per_s: of this moment.
        decode_tps: the latest that its decoding went at, tokens/s; None: it has not yet.
    """

    artifact: int
    name: str
    phase: str
    tokens: int
    rep: int
    reps: int
    tokens_per_s: float
    decode_tps: float | None
    so_far: tuple[SoFar, ...]


def now_of(more: Mapping[str, Any]) -> Now | None:
    """From what `Told` said; None: nothing of a measurement."""
    try:
        return from_json(Now, {f.name: more[f.name] for f in fields(Now)})
    except (KeyError, EdgeqError):
        return None


@dataclass
class Told:
    """Takes the workers' events, one worker after the other, and hands them on as those of the whole run.

    Args:
        names: of the artifacts, in the order of their turns.
        rounds: repetitions of each round; a worker does one artifact's round.
        kinds: pieces of work in a repetition.
        progress: told when a piece of work ends.
        live: told that too, and of the speed in between, with what `Now` has, and `left_s`.
    """

    names: Sequence[str]
    rounds: Sequence[int]
    kinds: int
    progress: Progress | None = None
    live: Live | None = None
    _speeds: dict[tuple[int, str, int], list[float]] = field(default_factory=dict)
    _decoding: dict[int, float] = field(default_factory=dict)  # artifact -> its latest tokens/s
    _took: dict[int, float] = field(default_factory=dict)  # artifact -> seconds of one repetition, the start shared out
    _artifact: int = 0
    _round: int = 0
    _began: float = 0.0
    _before: int = 0  # pieces of work of the workers before this one

    @property
    def total(self) -> int:
        return len(self.names) * sum(self._pieces(reps) for reps in self.rounds)

    def _pieces(self, reps: int) -> int:
        return self.kinds * (reps + 1)

    def begins(self, round_: int, artifact: int) -> None:
        """A worker begins."""
        self._round, self._artifact, self._began = round_, artifact, time.perf_counter()

    def ended(self) -> None:
        """The worker has ended."""
        reps = self.rounds[self._round]
        self._took[self._artifact] = (time.perf_counter() - self._began) / (reps + 1)
        self._before += self._pieces(reps)

    def __call__(self, event: Event) -> None:
        if "done" not in event:
            return
        told = {k: v for k, v in event.items() if k not in ("done", "total", "what", "left_s")}
        done = self._before + int(event["done"])
        if told["whole"] and told["rep"]:
            key = (self._artifact, str(told["phase"]), int(told["tokens"]))
            self._speeds.setdefault(key, []).append(float(told["tokens_per_s"]))
        if self.live is not None:
            if told["phase"] == "decode":
                self._decoding[self._artifact] = float(told["tokens_per_s"])
            told |= {"artifact": self._artifact, "name": self.names[self._artifact], "so_far": self._so_far()}
            told["decode_tps"] = self._decoding.get(self._artifact)
            if "left_s" in event:
                told["left_s"] = round(float(event["left_s"]) + self._later(float(event["left_s"])), 1)
            self.live(done, self.total, self._named(_words(event)), **told)
        if self.progress is not None and told["whole"]:
            self.progress(done, self.total, self._named(str(event["what"])))

    def _named(self, what: str) -> str:
        return f"{self.names[self._artifact]}: {what}" if len(self.names) > 1 else what

    def _so_far(self) -> list[dict[str, Any]]:
        return [
            {"artifact": a, "phase": p, "tokens": n, "tokens_per_s": round(median(s), 2), "reps": len(s)}
            for (a, p, n), s in self._speeds.items()
        ]

    def _later(self, left_s: float) -> float:
        """Seconds that the workers after this one take; one that has not run yet takes as long as this one."""
        own = (time.perf_counter() - self._began + left_s) / (self.rounds[self._round] + 1)
        return sum(
            self._took.get(a, own) * (reps + 1)
            for r, reps in enumerate(self.rounds)
            for a in range(len(self.names))
            if (r, a) > (self._round, self._artifact)
        )


def _words(event: Event) -> str:
    """`writing 128 tokens, 2 of 5`."""
    what = f"writing {event['tokens']} tokens"
    if event["phase"] == "prefill":
        what = f"reading a prompt of {event['tokens']} tokens"
    return f"{what}, {event['rep']} of {event['reps']}" if event["rep"] else f"{what}, to warm up"
