"""A quantized model of another tool's becomes a checkpoint, every code and scale as it was.

One shard a layer, as the engine writes them; the folder takes its name when it is whole. Nothing is resumed: there is
nothing to compute.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.checkpoint.manifest import MANIFEST, FileEntry, Manifest, StoredTensor
from edgeq.checkpoint.shard import write_shard
from edgeq.checkpoint.store import Checkpoint, entries
from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.checkpoint.weights import Weight
from edgeq.checkpoint.write import versions, write_tokenizer
from edgeq.errors import EdgeqError
from edgeq.files import new_folder, write_json
from edgeq.formats.sources import Quantized, QuantizedFolder, QuantizedGguf, open_quantized
from edgeq.jsonable import to_json
from edgeq.model.spec import ModelSpec, refuse_estimate
from edgeq.model.tensors import TensorSpec, tensors
from edgeq.quantize.engine import describe_source
from edgeq.quantize.layout import shard_name
from edgeq.registry import Progress
from edgeq.scheme import F16, F32, Grid, Scheme

Array = npt.NDArray[Any]


def convert(
    source: str | Path, out: str | Path, *, progress: Progress | None = None, force: bool = False
) -> Checkpoint:
    """Read a quantized model and write it as a checkpoint.

    Args:
        source: a folder, a GGUF file or a hub id; see `edgeq.formats.sources.open_quantized`.
        progress: called with (weights done, weights in all, what is being done).
        force: replace `out` once the new checkpoint is whole.

    Raises:
        EdgeqError: nothing there, not quantized or in a way that no grid keeps, damaged; `out` exists without `force`;
            no space.
    """
    weights, folder = open_quantized(source), Path(out).expanduser()
    refuse_estimate(weights.spec)
    tokenizer = weights.tokenizer_files()
    with new_folder(folder, force=force) as work:
        report = progress or _silent
        total = sum(t.numel for t in tensors(weights.spec))
        report(0, total, "checksums of the source")
        origin = {**describe_source(weights), "format": weights.method}
        stored, files = _write_shards(weights, work, report, total)
        files |= write_tokenizer(tokenizer, weights.spec.name, work)
        manifest = Manifest(
            recipe={"model": str(source), "method": "convert"},
            scheme=_scheme(weights, stored),
            spec=weights.spec,
            source=origin,
            versions=versions(),
            tensors=stored,
            files={name: files[name] for name in sorted(files)},
        )
        write_json(work / MANIFEST, to_json(manifest))
    return Checkpoint.open(folder)


def _write_shards(
    weights: Quantized, folder: Path, report: Progress, total: int
) -> tuple[dict[str, StoredTensor], dict[str, FileEntry]]:
    stored: dict[str, StoredTensor] = {}
    files: dict[str, FileEntry] = {}
    done = 0
    for shard, members in _shards(weights.spec).items():
        arrays: dict[str, Array] = {}
        for t in members:
            report(done, total, t.name)
            weight = weights.load(t.name)
            grid = _grid(weight, t)
            arrays |= entries(t.name, weight, half=grid == F16)
            activation = weights.activation(t.name) if isinstance(weights, QuantizedFolder) else None
            stored[t.name] = StoredTensor(shard, t.shape, grid, activation=activation)
            done += t.numel
        files[shard] = FileEntry(*write_shard(folder / shard, arrays))
    report(total, total, "done")
    return stored, files


def _shards(spec: ModelSpec) -> dict[str, list[TensorSpec]]:
    found: dict[str, list[TensorSpec]] = {}
    for t in tensors(spec):
        found.setdefault(shard_name(t.layer, t.role), []).append(t)
    return found


def _grid(weight: Weight, t: TensorSpec) -> Grid:
    """Float matrices in half precision where that loses nothing.

    Raises:
        EdgeqError: a value is not finite.
    """
    if isinstance(weight, QuantizedTensor):
        return weight.grid
    if not np.isfinite(weight).all():
        raise EdgeqError("a value is not finite", where=t.name)
    if len(t.shape) < 2:
        return F32
    with np.errstate(over="ignore"):
        return F16 if np.array_equal(weight.astype(np.float16).astype(np.float32), weight) else F32


def _scheme(weights: Quantized, stored: Mapping[str, StoredTensor]) -> Scheme:
    """What the checkpoint is called, by the grid that most of its linear weights are on."""
    spec = weights.spec
    known = {t.name: t for t in tensors(spec)}
    counts: Counter[Grid] = Counter()
    for name, entry in stored.items():
        if known[name].linear and known[name].role != "head":
            counts[entry.grid] += known[name].numel
    linear = counts.most_common(1)[0][0] if counts else stored["embed"].grid
    acts = {s.activation for s in stored.values()} - {None}
    static = any(a is not None and a.kind == "static" for a in acts)
    head = None if spec.tied else stored["head"].grid
    suffix = f"-a8-{'static' if static else 'dynamic'}" if acts else ""
    if isinstance(weights, QuantizedGguf):
        name = f"gguf-{grid_name(linear)}"
    else:
        name = f"{weights.stored.kind}-{grid_name(linear)}{suffix}"
    embed = stored["embed"].grid
    return Scheme(name, weights.method, linear, embed, head, 8 if acts else 16, act_static=static)


def grid_name(grid: Grid) -> str:
    """`int4-g128-sym`, `q4_k`, `f16`."""
    if grid.kind == "float":
        return f"f{grid.bits}"
    if grid.ggml_type is not None:
        return grid.ggml_type.lower()
    group = f"-g{grid.group_size}" if grid.group_size > 0 else ""
    return f"int{grid.bits}{group}{'-sym' if grid.symmetric else ''}"


def _silent(done: int, total: int, what: str) -> None:
    """The progress of a caller that asked for none."""
