"""How close an artifact's answers are to those of what it was made of, as its manifest has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgeq.artifact import Artifact
from edgeq.errors import EdgeqError
from edgeq.jsonable import from_json

Of = Literal["original", "checkpoint"]


@dataclass(frozen=True, slots=True)
class Likeness:
    """Attributes:
    of: what it was compared with: the unquantized model, or the checkpoint it was exported from.
    mean_kl: KL divergence in nats, the mean over `tokens` positions of a text (of noise, where no text was there).
    top1: share of positions where its likeliest token is the other's.
    """

    of: Of
    mean_kl: float
    top1: float
    tokens: int

    @property
    def words(self) -> str:
        """`KL divergence 0.012 nats to the original, same likeliest word 94.1%`."""
        return f"KL divergence {self.mean_kl:.2g} nats to the {self.of}, same likeliest word {self.top1:.1%}"


def likeness(artifact: Artifact) -> Likeness | None:
    """What `edgeq verify` or the export found; the original, where it was compared with that. None: not known."""
    from edgeq.measure.verify import Verification

    kept = {name: value for name, value in artifact.verify.items() if name != "read_back"}
    if "random" not in kept:
        return None
    try:
        found = from_json(Verification, kept, artifact.path)
    except EdgeqError:  # of another version of edgeq
        return None
    of: Of = "checkpoint" if found.original is None else "original"
    judged = found.original or found.text or found.random
    return Likeness(of, judged.mean_kl, judged.top1, judged.tokens)
