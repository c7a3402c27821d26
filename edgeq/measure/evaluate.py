"""`eval`: what a model lost, against the original, token by token on a text: KL divergence, agreement, perplexity.

With `second_half`, the tokens are those that llama.cpp's `llama-perplexity` scores: the text is cut into full chunks,
each chunk's first token is replaced by BOS where the tokenizer puts one before a text, and of each chunk of n tokens
the predictions after token n/2 and later count (all but the last, whose answer lies in the next chunk).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.errors import EdgeqError
from edgeq.files import whole_file
from edgeq.measure.divergence import Divergence, DivergenceMeter
from edgeq.measure.model import Measured
from edgeq.model.tokenizer import prefix
from edgeq.registry import Progress

Logits = npt.NDArray[np.float32]
STEP = 100  # progress is told in hundredths of a pass


@dataclass(frozen=True, slots=True)
class Windows:
    """A text cut into chunks.

    Attributes:
        chunks: of tokens, each a sequence of its own; none but the last is shorter than `length`.
        first: the first prediction that counts, in each chunk.
    """

    chunks: tuple[tuple[int, ...], ...]
    length: int
    first: int

    @property
    def scored(self) -> int:
        """Predictions that count."""
        return sum(len(c) - 1 - self.first for c in self.chunks)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Attributes:
    scheme, bytes: of the candidate.
    chunks, length, first: what was scored; see `Windows`.
    original_s, candidate_s: seconds each model ran (0 for logits that were kept).
    """

    original: str
    candidate: str
    scheme: str
    bytes: int
    chunks: int
    length: int
    first: int
    divergence: Divergence
    original_s: float
    candidate_s: float


def windows(
    tokenizer: Any,
    text: str,
    *,
    length: int,
    count: int | None = None,
    second_half: bool = True,
    longest: int = 1 << 30,
) -> Windows:
    """Cut a text into chunks of `length` tokens, `count` of them at most.

    Args:
        second_half: only full chunks, and of each the second half counts; otherwise all of the text does.
        longest: the model's context.

    Raises:
        EdgeqError: the text is too short, or a chunk too long for the model.
    """
    if not 2 <= length <= longest:
        raise EdgeqError(f"a chunk of {length} tokens", hint=f"The model takes 2 to {longest:,}: set --length")
    if count is not None and count < 1:
        raise EdgeqError(f"{count} chunks of text", hint="Give --chunks 1 or more")
    start = prefix(tokenizer)
    ids = [*start, *tokenizer.encode(text, special=False)]
    found = [ids[at : at + length] for at in range(0, len(ids), length)][:count]
    found = [c for c in found if len(c) == length or (not second_half and len(c) > 1)]
    first = length // 2 if second_half else 0
    if not found or length - first < 2:
        hint = "Give a longer --text, a smaller --length, or --all"
        raise EdgeqError(f"the text's {len(ids)} tokens are too few for a chunk of {length}", hint=hint)
    if start:
        found = [[start[0], *c[1:]] for c in found]
    return Windows(tuple(map(tuple, found)), length, first)


class ReferenceCache:
    """A folder that keeps a model's logits, chunk by chunk: the original's, when many candidates are compared with it.

    Args:
        model: the model's fingerprint; another model's logits are never taken.
    """

    def __init__(self, folder: Path, model: str) -> None:
        self._folder, self._model = folder, model

    def path(self, ids: Sequence[int], first: int) -> Path:
        key = hashlib.sha256(f"{self._model} {first} {list(ids)}".encode()).hexdigest()[:32]
        return self._folder / f"{key}.f32"

    def read(self, ids: Sequence[int], first: int, vocab: int) -> Logits | None:
        """float32 (scored, vocab), None where it was not kept whole."""
        path, rows = self.path(ids, first), len(ids) - 1 - first
        if not path.is_file() or path.stat().st_size != rows * vocab * 4:
            return None
        return np.fromfile(path, "<f4").reshape(rows, vocab)

    def keep(self, ids: Sequence[int], first: int, logits: Logits) -> None:
        """Raises an EdgeqError when the disk is full."""
        with whole_file(self.path(ids, first)) as stream:
            stream.write(np.ascontiguousarray(logits, "<f4").data)


def evaluate(
    original: Measured,
    candidate: Measured,
    text: Windows,
    *,
    cache: ReferenceCache | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Compare two models' predictions. One chunk's logits of both are in memory at a time.

    Raises:
        EdgeqError: the models have different vocabularies.
    """
    if original.vocab_size != candidate.vocab_size:
        sizes = f"{original.vocab_size:,} tokens, the candidate's {candidate.vocab_size:,}"
        raise EdgeqError(f"the original's vocabulary has {sizes}", hint="Compare a model with its own original")
    kept = [cache is not None and _has(cache, c, text.first, original.vocab_size) for c in text.chunks]
    clock = _Clock(progress, passes=len(text.chunks) * 2 - sum(kept))
    reference = _reference(original, text, cache, kept, clock)
    answers = clock.timed("candidate", candidate.logits(text.chunks, clock.tick))
    meter = DivergenceMeter()
    for chunk, ours, theirs in zip(text.chunks, reference, answers, strict=True):
        targets = np.array(chunk[text.first + 1 :])
        meter.add(ours, theirs[text.first : -1], targets)
    return Evaluation(
        original=original.name,
        candidate=candidate.name,
        scheme=candidate.scheme,
        bytes=candidate.bytes,
        chunks=len(text.chunks),
        length=text.length,
        first=text.first,
        divergence=meter.result(),
        original_s=clock.seconds.get("original", 0.0),
        candidate_s=clock.seconds["candidate"],
    )


def _has(cache: ReferenceCache, ids: Sequence[int], first: int, vocab: int) -> bool:
    path = cache.path(ids, first)
    return path.is_file() and path.stat().st_size == (len(ids) - 1 - first) * vocab * 4


def _reference(
    original: Measured, text: Windows, cache: ReferenceCache | None, kept: list[bool], clock: _Clock
) -> Iterator[Logits]:
    """The original's scored logits of each chunk, from the cache where they are there."""
    missing = [c for c, there in zip(text.chunks, kept, strict=True) if not there]
    fresh = clock.timed("original", original.logits(missing, clock.tick)) if missing else iter(())
    for chunk, there in zip(text.chunks, kept, strict=True):
        found = cache.read(chunk, text.first, original.vocab_size) if cache is not None and there else None
        if found is None:
            found = next(fresh)[text.first : -1]
            if cache is not None:
                cache.keep(chunk, text.first, found)
        yield found


class _Clock:
    """Progress over both models, and the seconds each of them ran."""

    def __init__(self, progress: Progress | None, passes: int) -> None:
        self._progress, self._total, self._done = progress, passes * STEP, 0.0
        self._what = ""
        self.seconds: dict[str, float] = {}

    def tick(self, passes: float) -> None:
        self._done += passes * STEP
        if self._progress is not None:
            self._progress(min(self._total, round(self._done)), self._total, self._what)

    def timed(self, what: str, logits: Iterator[Logits]) -> Iterator[Logits]:
        self.seconds[what] = 0.0
        while True:
            self._what, start = what, time.perf_counter()
            found = next(logits, None)
            self.seconds[what] += time.perf_counter() - start
            if found is None:
                return
            yield found
