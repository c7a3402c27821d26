"""The one generation loop, on a small protocol that every runtime's engine follows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypedDict

import numpy as np
import numpy.typing as npt

from edgeq.errors import EdgeqError
from edgeq.runtimes.sampling import Sampler, Sampling

Finish = Literal["", "eos", "stop", "length", "context", "cancelled"]


class Engine(Protocol):
    """A decoder with one sequence's KV cache inside.

    Attributes:
        context: how many tokens the sequence may have.
        chunk: how many tokens `prefill` should be given at once (bounds the memory of activations and logits).
        position: how many tokens the cache holds now.
    """

    context: int
    chunk: int

    @property
    def position(self) -> int: ...
    def prefill(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """Append 1 to `chunk` tokens; the logits after the last one, float32 (vocab,), valid until the next call."""
        ...

    def decode(self, token: int) -> npt.NDArray[np.float32]:
        """Append one token; the logits after it, float32 (vocab,), valid until the next call."""
        ...

    def rewind(self, position: int) -> None:
        """Forget every token from `position` on."""
        ...

    def logits(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """Append 1 to `chunk` tokens; the logits after each of them, float32 (len(ids), vocab), a fresh array."""
        ...

    def close(self) -> None: ...


class Options(TypedDict, total=False):
    """The keywords of `generate`, `stream` and `chat`; their meaning is at `Sampling` and `Settings`."""

    max_tokens: int | None
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    seed: int | None
    stop: str | Sequence[str]
    reuse: bool


@dataclass(frozen=True, slots=True)
class Settings:
    """How one answer is made.

    Attributes:
        max_tokens: at most so many new tokens; None: until the model stops or the context is full.
        stop: the answer ends before the first of these texts.
        sampling: how each token is chosen.
        reuse: compute only what the prompt does not share with the beginning of the cache. Faster, but kernels round
            differently for one token than for many, so the same prompt may then give another answer.
    """

    max_tokens: int | None = 256
    stop: tuple[str, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    reuse: bool = False

    @classmethod
    def of(cls, options: Options, *, reuse: bool = False) -> Settings:
        """`reuse` is the value where the options name none.

        Raises:
            EdgeqError: a keyword is unknown or its value out of range.
        """
        unknown = sorted(set(options) - Options.__annotations__.keys())
        if unknown:
            known = ", ".join(Options.__annotations__)
            raise EdgeqError(f"unknown generation option {unknown[0]!r}", hint=f"Known: {known}")
        rest = dict(options)
        limit, stop, reuse = rest.pop("max_tokens", 256), rest.pop("stop", ()), bool(rest.pop("reuse", reuse))
        if limit is not None and (not isinstance(limit, int) or limit < 1):
            raise EdgeqError(f"max_tokens is {limit}, it must be 1 or more")
        stops = (stop,) if isinstance(stop, str) else tuple(stop)  # type: ignore[arg-type]
        return cls(limit, stops, Sampling(**rest), reuse)  # type: ignore[arg-type]


@dataclass(slots=True)
class Stats:
    """What the last generation did.

    Attributes:
        prompt_tokens: all of the prompt; `reused_tokens` of them were in the cache already.
        ttft_s: seconds from the call to the first token.
        prefill_s: of these, seconds the engine worked on the prompt.
        decode_s: seconds from the first token to the last.
        finish: why it ended.
    """

    prompt_tokens: int = 0
    reused_tokens: int = 0
    new_tokens: int = 0
    ttft_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    finish: Finish = ""

    @property
    def prefill_tps(self) -> float:
        """Prompt tokens per second, those that had to be computed; 0 when unknown."""
        return (self.prompt_tokens - self.reused_tokens) / self.prefill_s if self.prefill_s > 0 else 0.0

    @property
    def decode_tps(self) -> float:
        """Tokens per second after the first; 0 when there were fewer than two."""
        return (self.new_tokens - 1) / self.decode_s if self.new_tokens > 1 and self.decode_s > 0 else 0.0


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens both begin with."""
    shorter = min(len(a), len(b))
    return next((i for i in range(shorter) if a[i] != b[i]), shorter)


def generate_ids(
    engine: Engine,
    ids: Sequence[int],
    settings: Settings,
    *,
    cached: list[int] | None = None,
    eos: frozenset[int] = frozenset(),
    stats: Stats | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[int]:
    """New tokens, one by one, EOS not among them.

    Args:
        ids: the prompt, at least one token.
        cached: the tokens the engine's cache holds, kept up to date in place; with `settings.reuse`, what the prompt
            shares with their beginning is not computed again.
        eos: tokens that end the answer.
        cancelled: asked before each step; a true answer ends the generation.

    Raises:
        EdgeqError: the prompt is empty or longer than the context.
    """
    stats = Stats() if stats is None else stats
    cached = [] if cached is None else cached
    start = time.perf_counter()
    check_fits(len(ids), engine.context)
    if len(cached) != engine.position:  # someone used the engine directly
        cached.clear()
    # One token at least is fed, since its logits choose the first new one.
    reused = min(common_prefix(cached, ids), len(ids) - 1) if settings.reuse else 0
    engine.rewind(reused)
    del cached[reused:]
    stats.prompt_tokens, stats.reused_tokens = len(ids), reused
    sampler = Sampler(settings.sampling, ids)
    logits = None
    for at in range(reused, len(ids), engine.chunk):
        if cancelled():
            stats.finish = "cancelled"
            return
        part = ids[at : at + engine.chunk]
        logits = engine.prefill(part)
        cached.extend(part)
    assert logits is not None
    stats.prefill_s = time.perf_counter() - start
    token = sampler.pick(logits)
    first = time.perf_counter()
    stats.ttft_s = first - start
    limit = engine.context if settings.max_tokens is None else settings.max_tokens
    while True:
        stats.new_tokens += 1
        stats.decode_s = time.perf_counter() - first
        if token in eos:
            stats.finish = "eos"
            return
        yield token
        if stats.new_tokens >= limit:
            stats.finish = "length"
            return
        if engine.position >= engine.context:
            stats.finish = "context"
            return
        if cancelled():
            stats.finish = "cancelled"
            return
        logits = engine.decode(token)
        cached.append(token)
        token = sampler.pick(logits)


def check_fits(tokens: int, context: int) -> None:
    if not tokens:
        raise EdgeqError("the prompt is empty", hint="Give at least one token of text")
    if tokens > context:
        raise EdgeqError(
            f"the prompt has {tokens} tokens, the context holds {context}",
            hint="Shorten the prompt or open the model with a larger context",
        )
