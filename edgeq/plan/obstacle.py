"""What stands against choosing a candidate, and the way out."""

from __future__ import annotations

from dataclasses import dataclass

from edgeq.plan.candidate import Candidate
from edgeq.plan.plan import Plan
from edgeq.plan.relief import LEAST_CONTEXT, longest_context
from edgeq.plan.words import tokens


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Attributes:
    head: `Out`, or that edgeq can't make it.
    reason: the plan's.
    hint: the way out.
    """

    head: str
    reason: str
    hint: str


def obstacle(plan: Plan, c: Candidate) -> Obstacle | None:
    """None: edgeq can make it, and the device can run it."""
    if not c.fits:
        return Obstacle("Out", "; ".join(c.reasons), _instead(plan, c))
    if c.not_yet is None:
        return None
    best = plan.recommended
    able = best is not None and best.not_yet is None
    if plan.model.estimated:
        return Obstacle("Not for edgeq to make", c.not_yet, "Choose a model of an architecture that edgeq knows")
    hint = f"Take {best.scheme.name} on {best.target}" if best and able else "Make it with its runtime's own tools"
    return Obstacle("Not made by edgeq yet", c.not_yet, hint)


def _instead(plan: Plan, c: Candidate) -> str:
    request = plan.request
    if c.short == "too large":
        longest = longest_context(plan.model, c.scheme, c.target, request, c.footprint.kv_dtype, c.capacity)
        if LEAST_CONTEXT <= longest < request.context:
            return f"It fits with a context of {tokens(longest)}"
        return "Its weights alone are too large: take one with fewer bits" if request.batch == 1 else "Ask for less"
    if c.short == "too slow":
        return "Ask for fewer tokens/s, a shorter context, or take one with fewer bits"
    return "Another scheme or runtime does it"
