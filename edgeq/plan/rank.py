"""The order of candidates under an objective."""

from __future__ import annotations

import math

from edgeq.plan.candidate import Candidate

READING = 10.0  # tokens/s that a reader keeps up with; more is worth less and less
USABLE_KLD = 0.3  # a worse model is not worth its speed or size
_KLD_WEIGHT = 3.5
_MEMORY_WEIGHT = 0.3


def order(candidates: list[Candidate], objective: str) -> list[Candidate]:
    """Best first. Ties go to the lower memory, then to the name, so that the same input gives the same order."""
    return sorted(candidates, key=lambda c: (_key(c, objective), c.footprint.total, c.scheme.name, c.target))


def _key(c: Candidate, objective: str) -> tuple[float, ...]:
    speed = c.expected.tps if c.expected else 0.0
    poor = float(c.quality.kld > USABLE_KLD)
    if objective == "quality":
        return (round(c.quality.kld, 4), -speed)
    if objective == "speed":
        return (poor, -speed)
    if objective == "size":
        return (poor, float(c.footprint.total))
    return (-balance(c),)


def balance(c: Candidate) -> float:
    """Speed saturates at what a reader keeps up with, loss counts in proportion, memory a little."""
    speed = c.expected.tps if c.expected else 0.0
    useful = math.log((speed + 0.1) / (speed + READING))
    return useful - _KLD_WEIGHT * min(c.quality.kld, 2.0) - _MEMORY_WEIGHT * c.footprint.total / max(1, c.capacity)
