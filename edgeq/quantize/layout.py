"""Which tensor gets which grid and lies in which shard, and what that takes. Pure arithmetic on the spec."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from edgeq.checkpoint.manifest import StoredTensor
from edgeq.checkpoint.pack import packed_width
from edgeq.checkpoint.store import parameter_dtypes
from edgeq.checkpoint.tensor import groups_of
from edgeq.errors import EdgeqError
from edgeq.model.spec import ModelSpec
from edgeq.model.tensors import TensorSpec, tensors
from edgeq.quantize.grids import refuses
from edgeq.quantize.grids.superblock import fitting
from edgeq.scheme import F32, Grid, Scheme

HEADER_BYTES = 250  # of a shard's header, an entry


@dataclass(frozen=True, slots=True)
class Item:
    """One tensor to quantize or store."""

    tensor: TensorSpec
    stored: StoredTensor

    @property
    def grid(self) -> Grid:
        return self.stored.grid


@dataclass(frozen=True, slots=True)
class Needs:
    """What quantizing takes.

    Attributes:
        disk_bytes: of the checkpoint.
        ram_bytes: of memory at the peak.
        weights: of the model.
        work_bytes: of the disk besides, until the run ends (hidden states).
        seconds: expected; 0: not predicted.
    """

    disk_bytes: int
    ram_bytes: int
    weights: int
    work_bytes: int = 0
    seconds: float = 0.0


Plan = dict[str, list[Item]]  # shard name -> its tensors


def shards(spec: ModelSpec, scheme: Scheme, overrides: Mapping[str, Grid] | None = None) -> Plan:
    """Shard name -> its tensors: the embedding, one shard a layer, and the rest.

    Args:
        overrides: grids of single tensors, in place of the scheme's.
    """
    found: Plan = {}
    for t in tensors(spec):
        shard = shard_name(t.layer, t.role)
        grid = (overrides or {}).get(t.name) or grid_of(t, scheme)
        item = Item(t, StoredTensor(shard, t.shape, grid))
        found.setdefault(shard, []).append(item)
    return found


def grid_of(t: TensorSpec, scheme: Scheme) -> Grid:
    """The grid a scheme gives a tensor; what is no matrix (norms, biases) stays in single precision.

    A llama.cpp block type that rows don't fill is replaced by what llama.cpp takes then.

    Raises:
        EdgeqError: a matrix that the grid can't hold.
    """
    wanted = F32
    if t.role == "embed":
        wanted = scheme.embed
    elif t.role == "head":
        wanted = scheme.head or scheme.embed
    elif t.linear:
        wanted = scheme.linear
    shape = _matrix(t.shape)
    if wanted.kind == "float" or len(shape) != 2:
        return wanted if wanted.kind == "float" else F32
    why = refuses(wanted, shape)
    if why is None:
        return wanted
    other = fitting(wanted, shape[1])
    if other is wanted or other.kind == "float":
        raise EdgeqError(f"{t.name} of shape {list(t.shape)} can't be quantized so: {why}", hint="Choose another grid")
    return other


def disk_bytes(plan: Plan) -> int:
    """Bytes of the checkpoint's shards, to within a per cent."""
    return sum(stored_bytes(i.stored) + HEADER_BYTES for shard in plan.values() for i in shard)


def stored_bytes(stored: StoredTensor) -> int:
    """Exact bytes of a tensor's entries in its shard."""
    grid, (rows, columns) = stored.grid, stored.matrix
    if grid.kind == "float":
        return rows * columns * grid.bits // 8
    groups = groups_of(columns, grid.group_size)
    sizes = {"F16": 2 * groups, "F32": 4 * groups, "U8": groups, "I8": groups}
    supers = 0 if grid.super_size is None else groups_of(columns, grid.super_size)
    total = packed_width(columns, grid.bits)
    for part, dtype in parameter_dtypes(grid).items():
        if dtype is None:
            continue
        if part == "zero_points" and grid.zero == "int":
            total += packed_width(groups, grid.bits)
        elif part.startswith("super"):
            total += supers * (2 if dtype == "F16" else 4)
        else:
            total += sizes[dtype]
    return rows * total


def shard_name(layer: int | None, role: str = "") -> str:
    """The file of a layer's tensors, of the embedding (`embed`), or of the rest."""
    if layer is not None:
        return f"layer-{layer:04}.safetensors"
    return "embed.safetensors" if role == "embed" else "final.safetensors"


def _matrix(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Stacked experts are quantized as one matrix."""
    return (math.prod(shape[:-1]), shape[-1]) if len(shape) == 3 else shape
