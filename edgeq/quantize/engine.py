"""The engine: stream a model tensor by tensor onto its grids, into a checkpoint. Never holds the model.

Work goes on in `OUT.partial`: one shard a layer, each written atomically and then journaled. After a kill, the same
command takes up where it stopped and ends in the same bytes. `OUT` appears when everything is whole.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq import __version__
from edgeq.artifact import sha256
from edgeq.checkpoint.manifest import FORMAT, MANIFEST, FileEntry, Manifest, StoredTensor
from edgeq.checkpoint.shard import write_shard
from edgeq.checkpoint.store import TOKENIZER, Checkpoint, entries
from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.checkpoint.weights import Weights, dense
from edgeq.errors import EdgeqError
from edgeq.files import write_bytes, write_json
from edgeq.jsonable import to_json
from edgeq.model.spec import refuse_estimate
from edgeq.quantize.journal import Journal
from edgeq.quantize.layout import Item, Plan, needs, shards
from edgeq.quantize.methods import find_method
from edgeq.quantize.methods.composition import Method
from edgeq.quantize.work import check_room, clear, finish, work_folder
from edgeq.recipe import Recipe, recipe_json
from edgeq.registry import Progress

Floats = npt.NDArray[np.float32]
ERROR_CHUNK = 1 << 20  # weights compared at once
LARGEST_HALF = 65504.0


def quantize(
    source: Weights, recipe: Recipe, out: Path, *, progress: Progress | None = None, force: bool = False
) -> Checkpoint:
    """Quantize `source` by `recipe` into the folder `out`.

    Args:
        progress: called with (weights done, weights in all, what is being done).
        force: replace `out` once the new checkpoint is whole.

    Raises:
        EdgeqError: `out` exists, no such method, no room, or a weight that can't be quantized.
    """
    method = find_method(recipe.method)
    out = Path(out).expanduser()
    if out.exists() and not force:
        raise EdgeqError("the output exists already", where=out, hint="Choose another name or add --force")
    refuse_estimate(source.spec)
    plan = shards(source.spec, recipe.scheme)
    report = progress or _silent
    try:
        with work_folder(out) as work:
            _run(source, recipe, method, plan, work, report)
            finish(work, out)
    except EdgeqError as error:
        if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, BlockingIOError):  # that: the lock
            hint = "Free space and run the same command again: it goes on where it stopped"
            raise EdgeqError(error.what, where=error.where, hint=hint) from error.__cause__
        raise
    return Checkpoint.open(out)


def _run(source: Weights, recipe: Recipe, method: Method, plan: Plan, work: Path, report: Progress) -> None:
    tokenizer = source.tokenizer_files()  # first: when it is damaged, the hours of the shards would be lost
    report(0, needs(plan).weights, "checksums of the source")
    origin = describe_source(source)
    log = Journal(work, _fingerprint(source, recipe, origin))
    clear(work, keep=log.done)
    check_room(work, needs({name: items for name, items in plan.items() if name not in log.done}).disk_bytes)
    _write_shards(source, plan, method, log, report)
    files = {d.shard: d.file for d in log.done.values()} | _write_tokenizer(tokenizer, source.spec.name, work)
    manifest = Manifest(
        recipe=recipe_json(recipe),
        scheme=recipe.scheme,
        spec=source.spec,
        source=origin,
        versions=_versions(),
        tensors={i.tensor.name: _with_error(i, log) for items in plan.values() for i in items},
        files={name: files[name] for name in sorted(files)},
    )
    write_json(work / MANIFEST, to_json(manifest))


def describe_source(source: Weights) -> dict[str, Any]:
    """The source's name and the checksums of its weight files (of its tensors, where it has no files)."""
    name = source.spec.name
    files: tuple[Path, ...] = getattr(source, "files", ())
    if files:
        return {"name": name, "files": {p.name: {"bytes": p.stat().st_size, "sha256": sha256(p)} for p in files}}
    digest = hashlib.sha256()
    for tensor in source.names():
        digest.update(tensor.encode())
        digest.update(np.ascontiguousarray(dense(source.load(tensor))).data)
    return {"name": name, "tensors_sha256": digest.hexdigest()}


def relative_error(weight: Floats, quantized: QuantizedTensor) -> float:
    """||W - Q|| / ||W|| (Frobenius), in double precision; 0 where W is all zero."""
    rows, columns = weight.shape
    off = size = 0.0
    step = max(1, ERROR_CHUNK // max(1, columns))
    for a in range(0, rows, step):
        part = slice(a, a + step)
        here = QuantizedTensor.of(quantized.grid, quantized.codes[part], quantized.parameters.rows(part)).dequantize()
        off += float(np.square(here - weight[part]).sum(dtype=np.float64))
        size += float(np.square(weight[part]).sum(dtype=np.float64))
    return math.sqrt(off / size) if size else 0.0


def _write_shards(source: Weights, plan: Plan, method: Method, log: Journal, report: Progress) -> None:
    total, done = needs(plan).weights, 0
    for shard, items in plan.items():
        if shard in log.done:
            done += sum(i.tensor.numel for i in items)
            continue
        found: dict[str, npt.NDArray[Any]] = {}
        errors: dict[str, float] = {}
        for item in items:
            name = item.tensor.name
            report(done, total, name)
            try:
                stored, error = _one(dense(source.load(name)), item, method)
            except EdgeqError as problem:
                raise EdgeqError(problem.what, where=problem.where or name, hint=problem.hint) from problem
            found |= stored
            if error is not None:
                errors[name] = error
            done += item.tensor.numel
        log.add(shard, *write_shard(log.path.parent / shard, found), errors)
    report(total, total, "done")


def _one(weight: Floats, item: Item, method: Method) -> tuple[dict[str, npt.NDArray[Any]], float | None]:
    """A shard's entries for one tensor, and its relative error when it was quantized."""
    name, grid = item.tensor.name, item.grid
    if weight.shape != item.tensor.shape:
        raise EdgeqError(f"the source gives shape {weight.shape}, the model needs {item.tensor.shape}")
    if grid.kind == "float":
        half = grid.bits == 16
        if not np.isfinite(weight).all() or (half and np.abs(weight).max(initial=0) > LARGEST_HALF):
            raise EdgeqError("a value is not finite, or too large for half precision", where=name)
        return entries(name, weight, half=half), None
    matrix = weight.reshape(item.stored.matrix)
    quantized = method.quantize(matrix, grid)
    return entries(name, quantized), relative_error(matrix, quantized)


def _write_tokenizer(files: Mapping[str, Path | bytes], model: str, work: Path) -> dict[str, FileEntry]:
    found = {}
    for name, content in files.items():
        if Path(name).name != name:
            raise EdgeqError(f"a tokenizer file can't be named {name!r}", where=model)
        path = work / TOKENIZER / name
        write_bytes(path, content if isinstance(content, bytes) else content.read_bytes())
        found[f"{TOKENIZER}/{name}"] = FileEntry(path.stat().st_size, sha256(path))
    return found


def _with_error(item: Item, log: Journal) -> StoredTensor:
    s = item.stored
    return StoredTensor(s.shard, s.shape, s.grid, log.done[s.shard].errors.get(item.tensor.name))


def _fingerprint(source: Weights, recipe: Recipe, origin: dict[str, Any]) -> str:
    """Whatever changes the bytes of a shard changes this."""
    parts = [FORMAT, recipe_json(recipe), to_json(source.spec), origin, _versions()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _versions() -> dict[str, str]:
    return {"edgeq": __version__, "numpy": np.__version__}


def _silent(done: int, total: int, what: str) -> None:
    """The progress of a caller that asked for none."""
