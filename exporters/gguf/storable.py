"""Which grids are llama.cpp's block types in other words, and the same tensor in a block type's grid."""

from __future__ import annotations

import numpy as np

from edgeq.checkpoint.tensor import Parameters, QuantizedTensor, groups_of
from edgeq.errors import EdgeqError
from edgeq.scheme import GGML_GRIDS, Grid

BLOCK = 32
TERNARY = 256
FLOATS = ("F32", "F16", "BF16")  # no blocks; llama.cpp does not round what they are multiplied with to 8 bits
_SYMMETRIC = {4: "Q4_0", 5: "Q5_0", 8: "Q8_0"}
_MINIMUM = {4: "Q4_1", 5: "Q5_1"}


def refuses(grid: Grid) -> str | None:
    """Why no block type stores this grid losslessly, or None when one does."""
    if grid.kind == "float":
        return None
    if grid.kind == "gguf":
        return None if grid.ggml_type in GGML_GRIDS else f"{grid.ggml_type} is not a type edgeq writes"
    if grid.codebook == "ternary":
        return _refuses_ternary(grid)
    if grid.codebook is not None and grid.codebook != "iq4_nl":
        return f"llama.cpp has no block type for the codebook {grid.codebook}"
    if grid.super_size is not None:
        return "llama.cpp has no such super-blocks"
    if grid.scale_dtype != "f16":
        return "llama.cpp stores scales in half precision"
    if grid.group_size != -1 and grid.group_size % BLOCK:
        return f"groups of {grid.group_size} are no multiple of llama.cpp's {BLOCK}"
    if grid.zero == "int":
        return "llama.cpp stores minima, not integer zero points; quantize with --grid affine, q4_k, ... or --symmetric"
    types = _MINIMUM if grid.zero == "float" else _SYMMETRIC
    if grid.codebook is None and grid.bits not in types:
        kind = "with minima" if grid.zero == "float" else "without minima"
        return f"llama.cpp has no {grid.bits}-bit blocks {kind}; it has {', '.join(map(str, types))}"
    return None


def _refuses_ternary(grid: Grid) -> str | None:
    if grid.super_size is not None or grid.scale_dtype != "f16":
        return "llama.cpp's ternary blocks have one scale in half precision each"
    if grid.group_size != -1 and grid.group_size % TERNARY:
        return f"llama.cpp's ternary blocks hold {TERNARY} weights, groups of {grid.group_size} are no multiple of that"
    return None


def ggml_type(grid: Grid, ternary: str = "TQ2_0") -> str:
    """The block type that stores a grid that is not refused; `ternary`: which of both for ternary grids."""
    if grid.kind == "float":
        return "F16" if grid.bits == 16 else "F32"
    if grid.codebook == "ternary":
        return ternary
    if grid.ggml_type is not None:
        return grid.ggml_type
    if grid.codebook is not None:
        return "IQ4_NL"
    return (_MINIMUM if grid.zero == "float" else _SYMMETRIC)[grid.bits]


def as_blocks(q: QuantizedTensor, name: str) -> QuantizedTensor:
    """The same numbers on the grid of the block type: a wider group's parameters are repeated.

    Raises:
        EdgeqError: the grid is refused, or a row is no whole number of blocks.
    """
    why = refuses(q.grid)
    if why is not None:
        raise EdgeqError(f"this checkpoint can't be exported to gguf: {why}", where=name)
    columns = q.shape[1]
    if columns % BLOCK:
        raise EdgeqError(f"llama.cpp needs rows of whole blocks of {BLOCK}, this has {columns}", where=name)
    if q.grid.kind == "gguf":
        return q
    repeats = q.group_size // BLOCK
    blocks = groups_of(columns, BLOCK)
    scales, zeros = (None if a is None else np.repeat(a, repeats, 1)[:, :blocks] for a in (q.scales, q.zero_points))
    assert scales is not None
    return QuantizedTensor.of(GGML_GRIDS[ggml_type(q.grid)], q.codes, Parameters(scales, zeros))
