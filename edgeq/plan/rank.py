"""The order of candidates under an objective."""

from __future__ import annotations

import math

from edgeq.plan.candidate import Candidate

READING = 10.0  # tokens/s that a reader keeps up with; more is worth less and less
USABLE_KLD = 0.3  # a worse model is not worth its speed or size
_KLD_WEIGHT = 3.5
_MEMORY_WEIGHT = 0.3
_TIGHT_WEIGHT = 0.3  # of the last tenth of the memory: other programs will feel it, and the estimate is none too exact
# A prompt is multiplication, which a graphics card does many times faster than the processor beside it. Vulkan gains
# less and on phones often nothing, so it has to win by its decoding speed.
_PROMPT_BONUS = 0.15
_PROCESSORS = ("cpu", "android", "vulkan", "npu")


def order(candidates: list[Candidate], objective: str, batch: int = 1) -> list[Candidate]:
    """Best first for `batch` sequences at once. Ties go to the lower memory, then to the name, so that the same input
    gives the same order."""
    return sorted(candidates, key=lambda c: (_key(c, objective, batch), c.footprint.total, c.scheme.name, c.target))


def _key(c: Candidate, objective: str, batch: int) -> tuple[float, ...]:
    speed = c.expected.tps if c.expected else 0.0
    poor = float(c.quality.kld > USABLE_KLD)
    if objective == "quality":
        return (round(c.quality.kld, 4), -speed)
    if objective == "speed":
        return (poor, -speed)
    if objective == "size":
        return (poor, float(c.footprint.total))
    return (-balance(c, batch),)


def balance(c: Candidate, batch: int = 1) -> float:
    """Speed of each sequence saturates at what a reader keeps up with, loss counts in proportion, memory a little, its
    last tenth more, and a graphics card reads prompts faster."""
    speed = c.expected.tps / batch if c.expected else 0.0
    useful = math.log((speed + 0.1) / (speed + READING))
    memory = _MEMORY_WEIGHT * c.share + _TIGHT_WEIGHT * max(0.0, (c.share - 0.9) / 0.1)
    prompt = 0.0 if c.target.split("/")[-1] in _PROCESSORS else _PROMPT_BONUS
    return useful + prompt - _KLD_WEIGHT * min(c.quality.kld, 2.0) - memory
