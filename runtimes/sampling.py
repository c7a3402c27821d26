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

# Top-p first looks among this many best tokens; the whole vocabulary is sorted only if their mass doesn't suffice.
_NUCLEUS_FIRST = 1024


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
    scaled = logits.astype(np.float64) / max(sampling.temperature, 1e-6)
    ids = _pool(scaled, sampling)
    probabilities = _softmax(scaled[ids])
    if sampling.top_p < 1:
        # The token that crosses p stays: keep those whose mass *before* them is below p.
        kept = int(np.searchsorted(np.cumsum(probabilities) - probabilities, sampling.top_p, side="left"))
        ids, probabilities = ids[:kept], probabilities[:kept]
    if sampling.min_p > 0:
        likely = probabilities >= sampling.min_p * probabilities.max()
        ids, probabilities = ids[likely], probabilities[likely]
    return ids, probabilities / probabilities.sum()


def draw(ids: Ids, probabilities: npt.NDArray[np.float64], rng: np.random.Generator) -> int:
    """One id by inverse transform: the first whose cumulative probability exceeds a uniform number."""
    place = int(np.searchsorted(np.cumsum(probabilities), rng.random(), side="right"))
    return int(ids[min(place, len(ids) - 1)])


def _best(scores: npt.NDArray[np.float64], count: int) -> Ids:
    """Indices of the `count` largest scores, largest first."""
    count = min(count, len(scores))
    found = np.argpartition(scores, len(scores) - count)[len(scores) - count :]
    ordered: Ids = found[np.argsort(-scores[found], kind="stable")]
    return ordered


def _pool(scaled: npt.NDArray[np.float64], sampling: Sampling) -> Ids:
    """The ids top-p and min-p choose from. Sorting a whole vocabulary for each token would be slow, so avoid it."""
    if sampling.top_k:
        return _best(scaled, sampling.top_k)
    if sampling.top_p == 1:
        return np.arange(len(scaled))
    if len(scaled) > _NUCLEUS_FIRST:
        pool = _best(scaled, _NUCLEUS_FIRST)
        top = scaled[pool[0]]
        if np.exp(scaled[pool] - top).sum() > sampling.top_p * np.exp(scaled - top).sum():
            return _with_rest(pool, scaled)
    return _best(scaled, len(scaled))


def _with_rest(pool: Ids, scaled: npt.NDArray[np.float64]) -> Ids:
    """The ordered pool followed by all others in any order: top-p cuts inside the pool, the mass stays that of all."""
    others = np.ones(len(scaled), bool)
    others[pool] = False
    return np.concatenate([pool, np.flatnonzero(others)])


def _softmax(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    weights = np.exp(scores - scores.max())
    result: npt.NDArray[np.float64] = weights / weights.sum()
    return result
