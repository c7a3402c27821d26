"""Which grids are llama.cpp's block types in other words, and the same tensor in a block type's grid.

A block has one scale, and where it is not symmetric a minimum, both in half precision. A weight with an integer zero
point is `scale * code - scale * zero_point`, so its minimum is the last product, rounded: by less than a hundredth of a
step for 4-bit codes. Integers of fewer bits than a block type has use a part of its range.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.checkpoint.integer_grids import integer_bits
from edgeq.checkpoint.integers import as_integers
from edgeq.checkpoint.tensor import Parameters, QuantizedTensor, groups_of
from edgeq.errors import EdgeqError
from edgeq.estimate.ggml import MINIMUM, integer_type
from edgeq.scheme import GGML_GRIDS, Grid

Array = npt.NDArray[Any]
Halves = npt.NDArray[np.float16]

BLOCK = 32
TERNARY = 256
FLOATS = ("F32", "F16", "BF16")  # no blocks; llama.cpp does not round what they are multiplied with to 8 bits


def refuses(grid: Grid) -> str | None:
    """Why no block type holds this grid's numbers, scales and minima in half precision, or None when one does."""
    if grid.kind == "float":
        return None
    if grid.kind == "gguf":
        return None if grid.ggml_type in GGML_GRIDS else f"{grid.ggml_type} is not a type edgeq writes"
    if grid.codebook == "ternary":
        return _refuses_ternary(grid)
    needed = integer_bits(grid)
    if needed is None:
        return f"llama.cpp has no block type for the codebook {grid.codebook}"
    if grid.super_size is not None:
        return "llama.cpp has no such super-blocks"
    if grid.codebook is not None and grid.scale_dtype != "f16":
        return "llama.cpp stores scales in half precision"
    if grid.group_size != -1 and grid.group_size % BLOCK:
        return f"groups of {grid.group_size} are no multiple of llama.cpp's {BLOCK}"
    if integer_type(needed, symmetric=grid.symmetric) is None:
        what = "zero points" if grid.zero == "int" else "minima"
        return f"llama.cpp has no {needed}-bit blocks with {what}; quantize with --symmetric or to {max(MINIMUM)} bits"
    return None


def rounds(grid: Grid) -> bool:
    """Whether scales or minima have to be rounded to half precision on their way into blocks."""
    return grid.kind == "int" and (grid.zero == "int" or grid.scale_dtype != "f16")


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
    if grid.codebook == "iq4_nl":
        return "IQ4_NL"
    found = integer_type(integer_bits(grid) or grid.bits, symmetric=grid.symmetric)
    assert found is not None, "`refuses` says so"
    return found


def as_blocks(q: QuantizedTensor, name: str) -> QuantizedTensor:
    """The same numbers on the grid of the block type, but for the roundings of `rounds`: a wider group's parameters are
    repeated.

    Raises:
        EdgeqError: the grid is refused, a row is no whole number of blocks, or a scale is beyond half precision.
    """
    why = refuses(q.grid)
    if why is not None:
        raise EdgeqError(f"this checkpoint can't be exported to gguf: {why}", where=name)
    columns = q.shape[1]
    if columns % BLOCK:
        raise EdgeqError(f"llama.cpp needs rows of whole blocks of {BLOCK}, this has {columns}", where=name)
    if q.grid.kind == "gguf":
        return q
    grid, (codes, scales, minima) = GGML_GRIDS[ggml_type(q.grid)], _parts(q)
    repeats, blocks = q.group_size // BLOCK, groups_of(columns, BLOCK)
    halves = [None if a is None else np.repeat(_half(a, name), repeats, 1)[:, :blocks] for a in (scales, minima)]
    assert halves[0] is not None
    return QuantizedTensor.of(grid, codes, Parameters(halves[0], halves[1]))


def _parts(q: QuantizedTensor) -> tuple[Array, Array, Array | None]:
    """Codes of the block type, scales and minima (rows, groups) as exact as they are."""
    assert q.scales is not None
    if q.grid.codebook == "iq4_nl" or q.grid.zero == "float":
        return q.codes, q.scales, q.zero_points
    same = as_integers(q, GGML_GRIDS[ggml_type(q.grid)].bits)
    assert same.scales is not None
    minima = None if same.zero_points is None else -same.scales.astype(np.float64) * same.zero_points
    return same.codes, same.scales, minima


def _half(numbers: Array, name: str) -> Halves:
    """Raises an EdgeqError where one is too large."""
    with np.errstate(over="ignore"):
        halves = numbers.astype(np.float16)
    if not np.isfinite(halves).all():
        raise EdgeqError("a scale or minimum is too large for llama.cpp's half precision", where=name)
    return halves
