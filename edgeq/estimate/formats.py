"""Bytes of the weights, tensor by tensor, as each target stores them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache

from edgeq.estimate import gguf, openvino_grids
from edgeq.estimate.ggml import stored_type, type_bytes
from edgeq.estimate.gguf_header import file_bytes
from edgeq.estimate.onnx_file import matrix_bytes, onnx_data_bytes
from edgeq.model.spec import ModelSpec
from edgeq.model.tensors import TensorSpec, tensors
from edgeq.scheme import Grid, Scheme

_FLOAT_BYTES = {"onnxruntime": 4, "openvino": 4}  # norms, biases, routers: the exported graphs compute in float32


def runtime_of(target: str | None) -> str | None:
    """`onnxruntime` of `onnxruntime/cpu`."""
    return target.split("/")[0] if target else None


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def grid_bytes(rows: int, columns: int, grid: Grid, runtime: str | None = None) -> int:
    """Bytes of a (rows, columns) matrix on `grid`, scales and zero points included.

    With g = group size and G = ceil(columns / g) groups a row:

    - onnxruntime: `MatMulNBits` (contrib operator's documentation): codes (rows, G, g*bits/8) with the last block
      padded, float32 scales (rows, G), zero points of `bits` bits packed per row; a block is the largest the kernels
      take that divides the group, 128 where a whole row shares a scale; float matrices are float32. Grids that these
      kernels lack: `edgeq.estimate.onnx_grids`.
    - openvino: codes of 2, 4 or 8 bits packed over the whole tensor (other widths take the next of these), scales in
      the grid's dtype, multiplied-out ones in float32, zero points with the width of the codes, minima in float32; a
      group that does not divide the row is split into equal ones that do.
    - others (compressed-tensors and the neutral checkpoint): codes packed per row into whole 32-bit words, scales in
      the grid's dtype, zero points likewise packed.
    """
    if grid.kind == "float":
        return rows * columns * (4 if runtime == "onnxruntime" else grid.bits // 8)
    if runtime == "onnxruntime":
        return matrix_bytes(rows, columns, grid)
    stored = openvino_grids.matrix_bytes(rows, columns, grid) if runtime == "openvino" else None
    if stored is not None:
        return stored
    if grid.kind == "gguf":
        kind = stored_type(grid.ggml_type or "Q8_0", columns)
        return rows * type_bytes(kind, columns)
    size = columns if grid.group_size == -1 else grid.group_size
    groups = _ceil(columns, size)
    stored_zeros = 0 if grid.zero == "none" else rows * groups
    scale = 2 if grid.scale_dtype == "f16" else 4
    if grid.super_size is not None:  # scales are codes of one byte
        return 4 * rows * _ceil(columns * grid.bits, 32) + rows * (groups + scale)
    zeros = 4 * rows * _ceil(groups * grid.bits, 32) if grid.zero == "int" else scale * stored_zeros
    return 4 * rows * _ceil(columns * grid.bits, 32) + scale * rows * groups + zeros


@dataclass(frozen=True, slots=True)
class Stored:
    """`count` tensors of one role and shape that are stored alike, `n_bytes` together; `spec` is one of them."""

    spec: TensorSpec
    count: int
    n_bytes: int


@lru_cache(maxsize=512)
def stored_tensors(spec: ModelSpec, scheme: Scheme, runtime: str | None = None) -> tuple[Stored, ...]:
    """All tensors with the bytes they take, equal ones together; a tied embedding is there once."""
    return tuple(_stored(spec, scheme, runtime))


def _stored(spec: ModelSpec, scheme: Scheme, runtime: str | None) -> Iterator[Stored]:
    if scheme.gguf_type is not None:
        kinds = Counter((t.spec.role, t.spec.shape, t.ggml_type) for t in gguf.gguf_tensors(spec, scheme.gguf_type))
        of_a_kind = {(t.spec.role, t.spec.shape): t.spec for t in gguf.gguf_tensors(spec, scheme.gguf_type)}
        for (role, shape, ggml_type), count in kinds.items():
            one = of_a_kind[role, shape]
            yield Stored(one, count, count * type_bytes(ggml_type, one.numel))
        return
    plain = 4 if scheme.linear.bits == 32 else _FLOAT_BYTES.get(runtime or "", 2)
    for t, count in alike(spec):
        grid = scheme_grid(t, scheme)
        each = _grid_bytes(t, grid, runtime, spec.tied) if grid else t.numel * plain
        yield Stored(t, count, count * each)


def _grid_bytes(t: TensorSpec, grid: Grid, runtime: str | None, tied: bool) -> int:
    columns = t.shape[-1]
    rows = t.numel // columns
    if runtime == "openvino":
        held = openvino_grids.expert_grid(grid) or grid if t.expert else grid
        table = t.role == "embed"
        found = openvino_grids.matrix_bytes(rows, columns, held, looked_up=table, multiplied=tied or not table)
        if found is not None:
            return found
    return grid_bytes(rows, columns, grid, runtime)


@cache
def alike(spec: ModelSpec) -> tuple[tuple[TensorSpec, int], ...]:
    """One tensor of each role and shape, and how many there are: a handful stands for hundreds."""
    counts = Counter((t.role, t.shape, t.linear, t.expert) for t in tensors(spec))
    first: dict[tuple[object, ...], TensorSpec] = {}
    for t in tensors(spec):
        first.setdefault((t.role, t.shape, t.linear, t.expert), t)
    return tuple((first[key], n) for key, n in counts.items())


def scheme_grid(t: TensorSpec, scheme: Scheme) -> Grid | None:
    """The grid a scheme gives a tensor; None: it keeps its floats."""
    if t.role == "embed":
        return scheme.embed
    if t.role == "head":
        return scheme.head or scheme.embed
    return scheme.linear if t.linear else None


@lru_cache(maxsize=1024)
def weight_bytes(spec: ModelSpec, scheme: Scheme, target: str | None = None) -> int:
    """Bytes of all weights under `scheme` as `target`'s runtime stores them; for GGUF and dense ONNX
    models the whole file: header, rotary tables and padding included.

    Args:
        target: `onnxruntime/cpu`, `openvino/gpu`, ... or None for the neutral layout.
    """
    if scheme.gguf_type is not None:
        return file_bytes(spec, scheme.gguf_type)
    whole_file = onnx_data_bytes(spec, scheme) if runtime_of(target) == "onnxruntime" else None
    if whole_file is not None:
        return whole_file
    return sum(t.n_bytes for t in stored_tensors(spec, scheme, runtime_of(target)))


@lru_cache(maxsize=1024)
def bits_per_weight(spec: ModelSpec, scheme: Scheme, target: str | None = None) -> float:
    """All stored bits over all parameters, embeddings included."""
    total = sum(t.n_bytes for t in stored_tensors(spec, scheme, runtime_of(target)))
    return 8 * total / sum(t.numel * n for t, n in alike(spec))
