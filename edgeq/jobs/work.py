"""What a job can do: each kind is a function of (request, progress), the same ones that the commands call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeq.errors import EdgeqError
from edgeq.jsonable import from_json, to_json
from edgeq.measure.live import Live

Kind = Callable[[dict[str, Any], Live], Any]


def profile(request: dict[str, Any], tell: Live) -> Any:
    """Measure this machine, every runtime's kernels too. Request: `refresh`."""
    from edgeq.device.profile import profile_device

    return profile_device(
        refresh=bool(request.get("refresh")), quick=False, say=lambda what: tell(0, 0, f"measuring {what}")
    )


def quantize(request: dict[str, Any], tell: Live) -> Any:
    """Request: `recipe` (JSON of a `Recipe`), `out`, `threads`, `force`. A killed one goes on where it stopped."""
    from edgeq.model.weights import open_source
    from edgeq.quantize.engine import quantize as run
    from edgeq.recipe import Recipe

    recipe = from_json(Recipe, request["recipe"], "the job")
    tell(0, 0, "opening the model")
    made = run(
        open_source(recipe.model),
        recipe,
        Path(request["out"]),
        progress=tell,
        force=bool(request.get("force")),
        threads=request.get("threads"),
    )
    return {"checkpoint": str(made.path), "scheme": made.scheme.name, "bytes": made.total_bytes}


def export(request: dict[str, Any], tell: Live) -> Any:
    """Request: `checkpoint`, `to`, `out`, `options`, `force`. Proved, as `edgeq export` does it."""
    from edgeq.checkpoint.open import open_weights
    from edgeq.measure.proof import prove, refuse_unproved
    from edgeq.registry import exporter

    chosen, out = exporter(request["to"]), Path(request["out"])
    weights = open_weights(request["checkpoint"])
    options = dict(request.get("options") or {})
    artifact = chosen.export(weights, out, progress=tell, force=bool(request.get("force")), **options)
    proof = prove(chosen, artifact, weights, progress=tell)
    refuse_unproved(proof)
    found = None if proof.verification is None else to_json(proof.verification)
    return {
        "artifact": str(proof.artifact.path),
        "bytes": proof.artifact.total_bytes,
        "runtime": proof.artifact.runtime,
        "tensors": proof.tensors,
        "verification": found,
        "unchecked": proof.unchecked,
        "notes": proof.artifact.notes,
    }


def bench(request: dict[str, Any], tell: Live) -> Any:
    """Request: `artifact`, and of the workload `prompt_tokens`, `tokens`, `reps`, `threads`. Kept in the store."""
    from edgeq.artifact import read_artifact
    from edgeq.device.load_ref import load_device
    from edgeq.measure.bench import Workload
    from edgeq.measure.bench import bench as run
    from edgeq.measure.promise import promise_of
    from edgeq.store import Store

    tell(0, 0, "opening the artifact")
    opened, device = read_artifact(request["artifact"]), load_device("auto")
    work = from_json(Workload, request.get("workload") or {}, "the job")
    found = run(opened, device, workload=work, promise=promise_of(opened, device, work), live=tell)
    Store().add(found)
    return to_json(found)


def compare(request: dict[str, Any], tell: Live) -> Any:
    """Request: `artifacts`, and of the workload as for `bench`. All are kept in the store."""
    from edgeq.device.load_ref import load_device
    from edgeq.measure.bench import Workload
    from edgeq.measure.compare import compare as run
    from edgeq.measure.compare import open_all
    from edgeq.store import Store

    tell(0, 0, "opening the artifacts")
    opened, device, store = open_all(request["artifacts"]), load_device("auto"), Store()
    work = from_json(Workload, request.get("workload") or {}, "the job")
    found = run(opened, device, workload=work, live=tell)
    for side in found.sides:
        store.add(side.benchmark)
    return to_json(found)


KINDS: dict[str, Kind] = {
    "profile": profile,
    "quantize": quantize,
    "export": export,
    "bench": bench,
    "compare": compare,
}
MEASURING = frozenset({"profile", "bench", "compare"})  # whose result is a speed


def kind(name: str) -> Kind:
    """Raises:
    EdgeqError: no such kind.
    """
    if name not in KINDS:
        raise EdgeqError(f"no kind of job named {name!r}", hint=f"Known: {', '.join(KINDS)}")
    return KINDS[name]
