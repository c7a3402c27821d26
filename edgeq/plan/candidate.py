"""One way to run the model: a scheme on a target, with all that is known about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgeq.estimate.ceiling import Ceiling
from edgeq.estimate.footprint import Footprint
from edgeq.estimate.prior import Expected
from edgeq.plan.offload import Offload
from edgeq.plan.quality import Quality
from edgeq.scheme import Scheme

Verdict = Literal["fits", "tight", "offload", "rejected"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """Attributes:
    capacity: bytes it may take; `footprint.total` above it does not fit.
    expected: tokens/s of all sequences together with the context full, and after a short prompt
        (`expected_short`); None when nothing is known.
    expected_prompt: tokens/s of a prompt of `ceiling.prompt` tokens, where that rests on a measurement.
    not_yet: why edgeq can't make this artifact itself today; None when it can.
    reasons: why it ranks where it does, or why it is out; the first says it best.
    short: a few words for a table, of a rejected one.
    """

    scheme: Scheme
    target: str
    verdict: Verdict
    footprint: Footprint
    capacity: int
    ceiling: Ceiling
    expected: Expected | None
    expected_short: Expected | None
    quality: Quality
    bits_per_weight: float
    not_yet: str | None
    reasons: tuple[str, ...] = ()
    short: str = ""
    offload: Offload | None = None
    expected_prompt: Expected | None = None

    @property
    def fits(self) -> bool:
        return self.verdict != "rejected"

    @property
    def room(self) -> int:
        """Bytes there are for it: those of card and processor together where its layers are split."""
        return self.offload.room if self.offload else self.capacity

    @property
    def share(self) -> float:
        """Of the memory there is for it."""
        return self.footprint.total / max(1, self.room)

    @property
    def decode_ceiling(self) -> float | None:
        return self.offload.decode_tps if self.offload else self.ceiling.decode_tps
