"""How far one language model's predictions are from another's, token by token.

KL divergence D(P || Q) = sum_v P(v) (log P(v) - log Q(v)), in nats (Kullback and Leibler, 1951); P is the reference.
Logits come in batches, in float64 inside, so that neither a long text nor a large vocabulary costs memory: one float64
per token is all that is kept, for the percentile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
ELEMENTS = 1 << 21  # of one float64 block (16 MiB); the working set is a few of them
ENDLESS = 1e6  # nats; stands for infinity, which JSON can't hold


@dataclass(frozen=True, slots=True)
class Divergence:
    """Distances of a candidate's predictions from a reference's, over `tokens` positions.

    Attributes:
        mean_kl, p99_kl, max_kl: D(reference || candidate) in nats. `ENDLESS` where the candidate gives
            probability zero to what the reference allows, or is not a number.
        top1: share of positions where the reference's likeliest token is also the candidate's.
        top5: share of positions where it is among the candidate's five likeliest.
        perplexity, reference_perplexity: exp of the mean negative log-likelihood of the text; None without targets,
            or beyond 1e300.
        broken: positions where the candidate's logits are not numbers.
    """

    tokens: int
    mean_kl: float
    p99_kl: float
    max_kl: float
    top1: float
    top5: float
    perplexity: float | None = None
    reference_perplexity: float | None = None
    broken: int = 0


@dataclass(slots=True)
class DivergenceMeter:
    """Adds up the divergence over batches: `add` as they come, then `result`."""

    _kl: list[Array] = field(default_factory=list)
    _top1: int = 0
    _top5: int = 0
    _nll: float = 0.0
    _reference_nll: float = 0.0
    _scored: int = 0
    _broken: int = 0

    def add(self, reference: Array, candidate: Array, targets: Array | None = None) -> None:
        """Compare two (tokens, vocab) batches of logits, any float dtype.

        Args:
            targets: (tokens,) the token that really came next at each position; negative: not known.

        Raises:
            ValueError: the shapes differ.
        """
        if reference.ndim != 2 or reference.shape != candidate.shape:
            raise ValueError(f"logits have shapes {reference.shape} and {candidate.shape}")
        if targets is not None and targets.shape != reference.shape[:1]:
            raise ValueError(f"{reference.shape[0]} positions but {targets.shape} targets")
        rows = max(1, ELEMENTS // max(1, reference.shape[1]))
        for start in range(0, reference.shape[0], rows):
            part = slice(start, start + rows)
            self._add_block(reference[part], candidate[part], None if targets is None else targets[part])

    def _add_block(self, reference: Array, candidate: Array, targets: Array | None) -> None:
        p, q = log_softmax(reference), log_softmax(candidate)
        self._kl.append(_kl(p, q))
        self._broken += int(np.isnan(q).any(axis=1).sum())
        best = p.argmax(axis=1)
        # The rank of the reference's choice: how many tokens the candidate likes more. NaN compares false: then none
        # agrees, because such a row is counted as the last rank.
        mine = np.take_along_axis(q, best[:, None], axis=1)
        rank = np.where(np.isnan(mine[:, 0]), q.shape[1], (q > mine).sum(axis=1))
        self._top1 += int((rank < 1).sum())
        self._top5 += int((rank < 5).sum())
        if targets is not None:
            known = np.flatnonzero(targets >= 0)
            self._nll += _nll(q[known, targets[known]])
            self._reference_nll += _nll(p[known, targets[known]])
            self._scored += known.size

    def result(self) -> Divergence:
        """The figures so far.

        Raises:
            ValueError: nothing was added.
        """
        kl = np.concatenate(self._kl) if self._kl else np.empty(0)
        if not kl.size:
            raise ValueError("no logits were compared")
        return Divergence(
            tokens=kl.size,
            mean_kl=float(kl.mean()),
            p99_kl=_percentile(kl, 0.99),
            max_kl=float(kl.max()),
            top1=self._top1 / kl.size,
            top5=self._top5 / kl.size,
            perplexity=_perplexity(self._nll, self._scored),
            reference_perplexity=_perplexity(self._reference_nll, self._scored),
            broken=self._broken,
        )


def divergence(reference: Array, candidate: Array, targets: Array | None = None) -> Divergence:
    """The divergence of two (tokens, vocab) arrays of logits; see `DivergenceMeter.add`."""
    meter = DivergenceMeter()
    meter.add(reference, candidate, targets)
    return meter.result()


def log_softmax(logits: Array) -> npt.NDArray[np.float64]:
    """Log-probabilities along the last axis, in float64. Subtracting the largest logit first keeps exp in range."""
    x: npt.NDArray[np.float64] = logits.astype(np.float64)
    with np.errstate(invalid="ignore"):  # inf - inf is NaN, which the callers count
        x -= x.max(axis=-1, keepdims=True)
    x -= np.log(np.exp(x).sum(axis=-1, keepdims=True))
    return x


def _kl(p: Array, q: Array) -> Array:
    """D(p || q) of each row of log-probabilities; a token of probability zero adds nothing (x log x -> 0)."""
    with np.errstate(invalid="ignore"):
        terms = np.exp(p) * (p - q)
    terms[np.isneginf(p) & ~np.isnan(q)] = 0.0
    kl = terms.sum(axis=1)
    kl[np.isnan(kl)] = ENDLESS
    bounded: Array = np.clip(kl, 0.0, ENDLESS)  # never negative but for the last bit
    return bounded


def _nll(log_probs: Array) -> float:
    return float(-np.where(np.isnan(log_probs), -ENDLESS, np.maximum(log_probs, -ENDLESS)).sum())


def _percentile(values: Array, share: float) -> float:
    """The smallest value that at least `share` of them do not exceed. An actual value: nothing is interpolated."""
    return float(np.sort(values)[math.ceil(share * values.size) - 1])


def _perplexity(nll: float, tokens: int) -> float | None:
    if not tokens:
        return None
    mean = nll / tokens
    return math.exp(mean) if mean < 690 else None
