"""A finished artifact and all there is to say about it, from its manifest and the local store of measurements."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgeq.amounts import amount
from edgeq.artifact import Artifact, read_artifact
from edgeq.benchmark import Benchmark, Promise
from edgeq.deliver.facts import facts_of
from edgeq.deliver.ways import Way, ways_of
from edgeq.errors import EdgeqError
from edgeq.jsonable import from_json
from edgeq.measure.proof import runs
from edgeq.measure.proof_words import artifact_rows
from edgeq.store import Store

Rows = list[tuple[str, str]]
LARGEST = 3  # files that are named
NO_WAY = "it has no tokenizer: give the model its tokenizer.json and export it again"


@dataclass(frozen=True, slots=True)
class Delivery:
    """Attributes:
    place: what is handed over: the folder, or the one file of another maker's GGUF.
    ways: to load it.
    benchmark: the latest measurement of this very artifact on this machine; None: there is none.
    promise: what the plan said of it, where that is known.
    """

    artifact: Artifact
    place: Path
    ways: tuple[Way, ...]
    benchmark: Benchmark | None
    promise: Promise | None

    @property
    def verdict(self) -> str:
        """`pass`, `fail`, or empty where it was not compared."""
        return str(self.artifact.verify.get("verdict", ""))

    @property
    def title(self) -> str:
        """`SmolLM2-135M in gptq-int4-g32 for onnxruntime`."""
        return f"{self.artifact.name} in {self.artifact.scheme} for {self.artifact.runtime}"

    def way(self, name: str) -> Way:
        """Raises:
        EdgeqError: it is not loaded in such a way.
        """
        found = next((way for way in self.ways if way.id == name), None)
        if found is None:
            known = ", ".join(way.id for way in self.ways) or "none"
            raise EdgeqError(f"no way {name!r} to load this artifact", where=self.place, hint=f"Known: {known}")
        return found


def deliver(path: Path | str) -> Delivery:
    """Read an artifact and what is known of it.

    Raises:
        EdgeqError: none there, damaged, or a file of it missing.
    """
    artifact = read_artifact(Path(path).expanduser())
    measured = _latest(artifact)
    promise = measured.promise if measured is not None else _planned(artifact)
    return Delivery(artifact, facts_of(artifact).place, ways_of(artifact), measured, promise)


def rows(found: Delivery) -> Rows:
    """What there is to say, a name and a sentence each."""
    made = found.artifact
    proved = [row for row in artifact_rows(made) if row[0] in ("read back", "verified")]
    if not found.verdict:
        proved = [("proof", f"none yet: edgeq verify {found.place}" if runs(made) else "none: export it again")]
    if found.verdict == "fail":
        why = made.verify.get("reasons") or ["no reason given"]
        proved = [("proof failed", f"{why[0]}. Do not hand it over")]
    return [
        ("place", str(found.place)),
        ("size", f"{amount(made.total_bytes)} in {len(made.files)} files: {_largest(made)}"),
        ("model", f"{made.name}, {made.scheme}, context {int(made.model.get('max_positions', 0)):,}"),
        ("runtime", made.runtime),
        *([("needs", found.ways[0].install)] if found.ways else []),
        *proved,
        *measured_rows(found),
        *(("note", str(note)) for note in made.notes),
        *([] if found.ways else [("note", NO_WAY)]),
    ]


def measured_rows(found: Delivery) -> Rows:
    """Speed and memory beside what was promised."""
    b, promise = found.benchmark, found.promise
    if b is None:
        said = [("promised", f"{promise.decode_tps:,.1f} tok/s")] if promise and promise.decode_tps else []
        if not runs(found.artifact):
            return said
        return [*said, ("measured", f"not yet: edgeq bench {found.place}")]
    speed = f"{b.decode.tps.median:,.1f} tok/s"
    memory = amount(b.peak_bytes)
    if promise is not None and promise.decode_tps:
        speed += f" (promised {promise.decode_tps:,.1f})"
    if promise is not None and promise.memory_bytes:
        memory += f" (promised {amount(promise.memory_bytes)})"
    return [("measured", f"{speed}, {memory} of memory at the peak; {b.date[:10]}, {b.device}")]


def _largest(artifact: Artifact) -> str:
    """The files that make up nearly all of it."""
    sizes = sorted(((int(f["bytes"]), name) for name, f in artifact.files.items()), reverse=True)
    named = [f"{Path(name).name} {amount(size)}" for size, name in sizes[:LARGEST] if size > artifact.total_bytes / 100]
    return ", ".join(named)


def _latest(artifact: Artifact) -> Benchmark | None:
    """The last measurement of an artifact at this place, as large as this one."""
    here = artifact.path.resolve()
    for one in reversed(Store().benchmarks(model=artifact.name, scheme=artifact.scheme)):
        if one.artifact_bytes == artifact.total_bytes and Path(one.artifact).resolve() == here:
            return one
    return None


def _planned(artifact: Artifact) -> Promise | None:
    with suppress(EdgeqError):
        recorded = artifact.plan.get("promise")
        return None if recorded is None else from_json(Promise, recorded, artifact.path)
    return None
