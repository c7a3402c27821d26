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
ELEMENTS = 1 << 17  # of one float64 block (1 MiB): the few of them at work stay in a core's cache
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
        known = np.flatnonzero(targets >= 0) if targets is not None else np.empty(0, np.int64)
        chosen = targets[known] if targets is not None else known
        kl, hit, reference_hit = _compare(reference, candidate, known, chosen)
        if not np.isfinite(kl).all():  # a probability of zero, or logits that are not numbers
            kl, hit, reference_hit = _compare_any(reference, candidate, known, chosen)
        self._kl.append(np.clip(kl, 0.0, ENDLESS))  # never negative but for the last bit
        self._nll += _nll(hit)
        self._reference_nll += _nll(reference_hit)
        self._scored += known.size
        self._rank(reference, candidate)

    def _rank(self, reference: Array, candidate: Array) -> None:
        """How many tokens the candidate likes more than the reference's choice. None agrees where the candidate's
        logits are no probabilities (a NaN, or an infinite largest one): such a row is counted as the last rank."""
        top = candidate.max(axis=1)
        broken = np.isnan(top) | np.isinf(top)
        mine = np.take_along_axis(candidate, reference.argmax(axis=1)[:, None], axis=1)
        rank = np.where(broken, candidate.shape[1], (candidate > mine).sum(axis=1))
        self._broken += int(broken.sum())
        self._top1 += int((rank < 1).sum())
        self._top5 += int((rank < 5).sum())

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


def _compare(reference: Array, candidate: Array, known: Array, targets: Array) -> tuple[Array, Array, Array]:
    """KL of each row, and both models' log-probabilities of the targets of the rows `known`; for finite logits.

    With a and b the logits less their largest: D(P || Q) = sum e^a (a - b) / sum e^a - log sum e^a + log sum e^b,
    which takes two passes of exp and no normalised copy.
    """
    a, b = reference.astype(np.float64), candidate.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        a -= a.max(axis=1, keepdims=True)
        b -= b.max(axis=1, keepdims=True)
        p = np.exp(a)
        mass = p.sum(axis=1)
        reference_hit, hit = a[known, targets], b[known, targets]
        a -= b
        a *= p
        other = np.exp(b, out=b).sum(axis=1)
        log_mass, log_other = np.log(mass), np.log(other)
        kl: Array = a.sum(axis=1) / mass - log_mass + log_other
    return kl, hit - log_other[known], reference_hit - log_mass[known]


def _compare_any(reference: Array, candidate: Array, known: Array, targets: Array) -> tuple[Array, Array, Array]:
    """The same for any logits; a token of probability zero adds nothing (x log x -> 0)."""
    p, q = log_softmax(reference), log_softmax(candidate)
    with np.errstate(invalid="ignore"):
        terms = np.exp(p) * (p - q)
    terms[np.isneginf(p) & ~np.isnan(q)] = 0.0
    kl = terms.sum(axis=1)
    kl[np.isnan(kl)] = ENDLESS
    return kl, q[known, targets], p[known, targets]


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
