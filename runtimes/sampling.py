"""Choosing the next token from its logits: pure numpy, the same for every runtime.

The order is that of the field (transformers' logits processors): repetition penalty, temperature, top-k, top-p, min-p.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeq.errors import EdgeqError

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

# Top-p looks among this many best tokens, then among more; only if their mass doesn't suffice are all sorted.
_NUCLEUS_SIZES = (256, 4096)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: divides the logits; 0 takes the best token (greedy) and ignores top_k, top_p, min_p and seed.
        top_k: only the k best tokens; 0 for all.
        top_p: the smallest set of best tokens whose probabilities reach p (Holtzman et al. 2020); 1 for all.
        min_p: only tokens at least this share as probable as the best (Nguyen et al. 2024); 0 for all.
        repetition_penalty: divides positive and multiplies negative logits of tokens seen (Keskar et al. 2019).
        seed: of the random generator; None draws a fresh one.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        _check("temperature", self.temperature, 0 <= self.temperature < float("inf"), "0 (greedy) or more")
        _check("top_k", self.top_k, self.top_k >= 0, "0 (all tokens) or more")
        _check("top_p", self.top_p, 0 < self.top_p <= 1, "above 0 and at most 1")
        _check("min_p", self.min_p, 0 <= self.min_p <= 1, "between 0 and 1")
        penalty = self.repetition_penalty
        _check("repetition_penalty", penalty, 0 < penalty < float("inf"), "above 0 (1 for none)")
        _check("seed", self.seed, self.seed is None or self.seed >= 0, "0 or more")


def _check(name: str, value: object, good: bool, rule: str) -> None:
    if not good:
        raise EdgeqError(f"{name} is {value}, it must be {rule}")


class Sampler:
    """Picks tokens one after another; remembers the random state and the tokens seen."""

    def __init__(self, sampling: Sampling, seen: Iterable[int] = ()) -> None:
        self._sampling = sampling
        self._rng = np.random.default_rng(sampling.seed)
        self._seen = set(seen) if sampling.repetition_penalty != 1.0 else set()
        self._seen_ids = np.fromiter(self._seen, np.int64, len(self._seen))

    def pick(self, logits: Floats) -> int:
        """The next token id. `logits` is float32 (vocab,) and is not changed.

        Raises:
            EdgeqError: the best logit is not a number: the model is broken, and any token would be an invention.
        """
        sampling = self._sampling
        if sampling.repetition_penalty != 1.0:
            logits = penalize(logits, self._seen_ids, sampling.repetition_penalty)
        token = greedy(logits) if sampling.temperature == 0 else self._draw(logits)
        if sampling.repetition_penalty != 1.0 and token not in self._seen:
            self._seen.add(token)
            self._seen_ids = np.append(self._seen_ids, token)
        return token

    def _draw(self, logits: Floats) -> int:
        greedy(logits)  # refuses what isn't finite
        ids, probabilities = candidates(logits, self._sampling)
        return draw(ids, probabilities, self._rng)


def greedy(logits: Floats) -> int:
    """Index of the largest logit, the lowest on a tie.

    Raises:
        EdgeqError: the largest is infinite or NaN (numpy's argmax stops at the first NaN).
    """
    best = int(logits.argmax())
    if not math.isfinite(logits[best]):
        raise EdgeqError("the model's logits are not finite numbers", hint="`edgeq verify` checks the artifact")
    return best


def penalize(logits: Floats, seen: Ids, penalty: float) -> Floats:
    """A copy in which the logits of the `seen` ids (each once) are divided by `penalty`, or multiplied if negative."""
    changed = logits.copy()
    scores = changed[seen]
    changed[seen] = np.where(scores < 0, scores * np.float32(penalty), scores / np.float32(penalty))
    return changed


def candidates(logits: Floats, sampling: Sampling) -> tuple[Ids, npt.NDArray[np.float64]]:
    """The token ids still in the race and their probabilities (float64, sum 1); best first when top-k or top-p is on.

    `logits` is float32 (vocab,), its largest value finite.
    """
    ids = np.arange(len(logits)) if not sampling.top_k else _best(logits, sampling.top_k)
    weights = _weights(logits[ids] if sampling.top_k else logits, sampling.temperature)
    if sampling.top_p < 1:
        enough = sampling.top_p * float(weights.sum(dtype=np.float64))
        if not sampling.top_k:
            ids = _head(logits, weights, enough)
            weights = weights[ids]
        # The token that crosses p stays: keep those whose mass *before* them is below p.
        before = np.cumsum(weights, dtype=np.float64) - weights
        kept = int(np.searchsorted(before, enough, side="left"))
        ids, weights = ids[:kept], weights[:kept]
    if sampling.min_p > 0:
        likely = weights >= sampling.min_p * weights.max()
        ids, weights = ids[likely], weights[likely]
    probabilities = weights.astype(np.float64)
    return ids, probabilities / probabilities.sum()


def draw(ids: Ids, probabilities: npt.NDArray[np.float64], rng: np.random.Generator) -> int:
    """One id by inverse transform: the first whose cumulative probability exceeds a uniform number."""
    place = int(np.searchsorted(np.cumsum(probabilities), rng.random(), side="right"))
    return int(ids[min(place, len(ids) - 1)])


def _best(logits: Floats, count: int) -> Ids:
    """Indices of the `count` largest logits, largest first, lower indices first among equals."""
    found = np.flatnonzero(logits >= _bound(logits, count)) if count < len(logits) else np.arange(len(logits))
    ordered: Ids = found[np.argsort(-logits[found], kind="stable")][:count]
    return ordered


def _bound(logits: Floats, count: int) -> float:
    """A value that at least `count` logits reach, and not many more.

    The maxima of blocks are much fewer than the logits, and the `count`-th largest of them is such a value, since
    `count` blocks hold one that reaches it. Ten times faster than partitioning the vocabulary.
    """
    block = len(logits) // (4 * count)
    if block > 1:
        logits = logits[: len(logits) // block * block].reshape(-1, block).max(axis=1)
    return float(np.partition(logits, len(logits) - count)[len(logits) - count])


def _head(logits: Floats, weights: Floats, enough: float) -> Ids:
    """So many of the best tokens, in order, that their weights exceed `enough`; sorting all would be slow."""
    for count in _NUCLEUS_SIZES:
        ids = _best(logits, count)
        if float(weights[ids].sum(dtype=np.float64)) > enough:
            return ids
    return _best(logits, len(logits))


def _weights(logits: Floats, temperature: float) -> Floats:
    """Probabilities up to a factor: the best token has 1. The temperature is at least 1e-6, which is as good as 0."""
    weights: Floats = np.exp((logits - logits.max()) / np.float32(max(temperature, 1e-6)))
    return weights
