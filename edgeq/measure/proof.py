"""An export proved before it is handed over: what its file holds, and what its runtime computes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgeq.artifact import MANIFEST, Artifact
from edgeq.errors import EdgeqError
from edgeq.files import write_json
from edgeq.registry import Exporter, Progress, names, runtime

if TYPE_CHECKING:
    from edgeq.checkpoint.weights import Weights
    from edgeq.measure.verify import Verification


@dataclass(frozen=True, slots=True)
class Proof:
    """Attributes:
    artifact: with the verdict in its manifest.
    tensors: how many were read back and compared; 0: none was.
    wrong: what differs in them.
    verification: of the logits; None where they were not compared.
    unchecked: why they were not; empty where they were.
    """

    artifact: Artifact
    tensors: int = 0
    wrong: tuple[str, ...] = ()
    verification: Verification | None = None
    unchecked: str = ""

    @property
    def passed(self) -> bool:
        return not self.wrong and (self.verification is None or self.verification.verdict == "pass")


def runs(artifact: Artifact) -> bool:
    """edgeq has a runtime for it."""
    return artifact.runtime in names("edgeq.runtimes")


def prove(
    chosen: Exporter,
    artifact: Artifact,
    weights: Weights,
    *,
    read_back: bool | None = None,
    progress: Progress | None = None,
) -> Proof:
    """Compare an artifact with what it was made of.

    Args:
        read_back: compare every number of the file too; None: where the exporter writes files for others' tools.

    Raises:
        EdgeqError: the artifact can't be opened.
    """
    wanted = bool(getattr(chosen, "reads_back", False)) if read_back is None else read_back
    made = Proof(artifact)
    if wanted and hasattr(chosen, "read_back"):
        made = _read_back(chosen, artifact, weights, progress)
        if made.wrong:
            return made
    absent = runtime(artifact.runtime).missing() if runs(artifact) else f"edgeq has no runtime {artifact.runtime}"
    if absent is not None:
        return replace(made, unchecked=f"its runtime needs {absent}" if runs(artifact) else absent)
    from edgeq.measure.verify import record, verify

    found = verify(made.artifact, checkpoint=weights, progress=progress)
    return replace(made, artifact=record(made.artifact, found), verification=found)


def refuse_unproved(proof: Proof) -> None:
    """Raises:
    EdgeqError: the proof failed.
    """
    if proof.passed:
        return
    reasons = proof.wrong or (proof.verification.reasons if proof.verification else ())
    raise EdgeqError(
        f"the artifact does not compute what the checkpoint says: {reasons[0] if reasons else 'no reason given'}",
        where=proof.artifact.path,
        hint="Do not use it; report it with the output of `edgeq doctor`",
    )


def _read_back(chosen: Exporter, artifact: Artifact, weights: Weights, progress: Progress | None) -> Proof:
    wrong: list[str] = chosen.read_back(artifact, weights, progress=progress)  # type: ignore[attr-defined]
    count = len(weights.names())
    verdict = {"verdict": "fail" if wrong else "pass", "reasons": wrong, "read_back": count}
    kept = replace(artifact, verify=verdict)
    write_json(kept.path / MANIFEST, kept.to_json())
    return Proof(kept, count, tuple(wrong))
