"""What a plan's plots show: memory against loss with the front of the best, and the roofline of a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeq.estimate.ceiling import decode_flop, prefill_flop
from edgeq.plan.candidate import Candidate
from edgeq.plan.plan import Plan


def pareto_front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that no other one beats: none needs less memory and loses less. The smallest first, one of equals."""
    front: list[Candidate] = []
    for c in sorted(candidates, key=lambda c: (c.footprint.total, c.quality.kld)):
        if not front or c.quality.kld < front[-1].quality.kld:
            front.append(c)
    return front


@dataclass(frozen=True, slots=True)
class Work:
    """Attributes:
    intensity: operations a byte read.
    rate: operations/s.
    """

    intensity: float
    rate: float


@dataclass(frozen=True, slots=True)
class Roofline:
    """Of the memory and processor that a target runs on (Williams, Waterman and Patterson, 2009).

    Attributes:
        bandwidth: bytes/s read.
        matmul: operations/s at most; None when unknown.
        roof: its corners from left to right: up along the bandwidth, then level.
        decode: the candidate's expected work while it writes; None when its speed is unknown.
        limit: the most that decoding can reach.
        prompt: the most that reading a prompt can reach; None when unknown.
        others: expected work of the target's other candidates.
    """

    bandwidth: float
    matmul: float | None
    roof: tuple[Work, ...]
    decode: Work | None
    limit: Work
    prompt: Work | None
    others: tuple[Work, ...]


def roofline(plan: Plan, c: Candidate) -> Roofline | None:
    """Of the target of `c`; None when its read bandwidth is unknown."""
    bound = c.ceiling
    if bound.bandwidth is None or bound.decode_tps is None:
        return None
    flop = decode_flop(plan.model, plan.request.context)
    same = [x for x in (*plan.candidates, *plan.rejected) if x.target == c.target and x is not c]
    others = tuple(w for x in same if (w := _decoding(plan, x, flop)) is not None)
    prompt = None
    if bound.prefill_tps is not None:
        needed = prefill_flop(plan.model, bound.prompt)
        prompt = Work(needed / bound.weight_bytes_read, needed * bound.prefill_tps / bound.prompt)
    limit = Work(_intensity(plan, c, flop), flop * (c.decode_ceiling or bound.decode_tps))
    matmul = bound.matmul.value if bound.matmul else None
    shown = [limit, *others, *([prompt] if prompt else [])]
    left, right = min(w.intensity for w in shown) / 2, 2 * max(w.intensity for w in shown)
    bandwidth = bound.bandwidth.value
    return Roofline(
        bandwidth, matmul, _roof(bandwidth, matmul, left, right), _decoding(plan, c, flop), limit, prompt, others
    )


def _roof(bandwidth: float, matmul: float | None, left: float, right: float) -> tuple[Work, ...]:
    if matmul is None:
        return (Work(left, bandwidth * left), Work(right, bandwidth * right))
    ridge = matmul / bandwidth
    corners = (left, ridge, max(right, 2 * ridge)) if left < ridge else (left, right)
    return tuple(Work(x, min(bandwidth * x, matmul)) for x in corners)


def _intensity(plan: Plan, c: Candidate, flop: float) -> float:
    return plan.request.batch * flop / (c.ceiling.weight_bytes_read + c.ceiling.kv_bytes_read)


def _decoding(plan: Plan, c: Candidate, flop: float) -> Work | None:
    return None if c.expected is None else Work(_intensity(plan, c, flop), flop * c.expected.tps)
