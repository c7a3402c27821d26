"""What all layouts of evenly spaced values share: integers on a scale and a zero point a group."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.checkpoint.codebooks import codebook
from edgeq.checkpoint.tensor import Parameters, QuantizedTensor, group_scales, groups_of
from edgeq.errors import EdgeqError
from edgeq.scheme import Grid

Array = npt.NDArray[Any]


def as_uniform(grid: Grid) -> Grid | None:
    """The integer grid that holds the same values as `grid`; None: there is none.

    llama.cpp's blocks without minima are integers, of which those with super-blocks need their scales multiplied out
    (exact in single precision); so are ternary values.
    """
    if grid.kind == "int":
        return None if grid.zero == "float" else grid
    scale_dtype = grid.scale_dtype if grid.super_size is None else "f32"
    if grid.kind == "gguf" and grid.zero == "none" and grid.codebook is None and grid.ggml_type is not None:
        return Grid("int", grid.bits, grid.group_size, "none", scale_dtype)
    if grid.codebook == "ternary":
        return Grid("int", 2, grid.group_size, "none", scale_dtype)
    return None


def uniform(q: QuantizedTensor) -> QuantizedTensor:
    """The same values on the grid that `as_uniform` gives.

    Raises:
        EdgeqError: it gives none.
    """
    grid = as_uniform(q.grid)
    if grid is None:
        raise EdgeqError(f"a {q.grid.kind} grid has no integers in other words")
    if grid == q.grid:
        return q
    codes = q.codes
    if q.grid.codebook is not None:
        codes = (codebook(q.grid.codebook) + (grid.levels >> 1)).astype(np.uint8)[q.codes]
    scales = q.scales
    if q.grid.super_size is not None:
        scales = group_scales(q.grid, q.parameters, q.shape[1])
    return QuantizedTensor.of(grid, codes, Parameters(scales))


def zero_points(q: QuantizedTensor) -> npt.NDArray[np.uint8]:
    """uint8 (rows, groups): of a symmetric grid too, for formats that always store them."""
    if q.zero_points is not None:
        found: npt.NDArray[np.uint8] = q.zero_points
        return found
    return np.full(q.scales.shape, q.grid.levels >> 1, np.uint8)


def assemble(
    bits: int, group_size: int, codes: Array, scales: Array, zeros: Array | None, where: object
) -> QuantizedTensor:
    """A tensor read from a file.

    Args:
        group_size: -1 for a whole row.
        codes: uint8 (rows, columns).
        scales: float (rows, groups), float16 or float32.
        zeros: (rows, groups) integers; None, or all in the middle of the codes: the grid is symmetric.

    Raises:
        EdgeqError: a scale that is not finite, or a shape that is no grid's.
    """
    rows, columns = codes.shape
    expected = (rows, groups_of(columns, group_size))
    if scales.shape != expected or (zeros is not None and zeros.shape != expected):
        shapes = f"scales of shape {list(scales.shape)}"
        raise EdgeqError(f"{shapes}, groups of {group_size} need {list(expected)}", where=where)
    if not np.isfinite(scales).all():
        raise EdgeqError("a scale is not finite", where=where)
    if zeros is not None and bool((zeros == 1 << (bits - 1)).all()):
        zeros = None
    kept, scale_dtype = stored_scales(scales)
    grid = Grid("int", bits, group_size, "none" if zeros is None else "int", scale_dtype)
    return QuantizedTensor(grid, codes, kept, None if zeros is None else zeros.astype(np.uint8))


def stored_scales(scales: Array) -> tuple[Array, Any]:
    """In half precision where it holds every one of them exactly (bfloat16 ones it nearly always does), else single."""
    with np.errstate(over="ignore"):
        half = scales.astype(np.float16)
    if np.array_equal(half.astype(np.float32), scales.astype(np.float32)):
        return half, "f16"
    return scales.astype(np.float32), "f32"


def group_of(columns: int, groups: int, stated: int | None, where: object) -> int:
    """The group size of a matrix with so many scales a row: the configuration's where that can be, else by division.

    Raises:
        EdgeqError: no size gives so many groups.
    """
    if stated is not None and (stated == -1 or stated > 0) and groups_of(columns, stated) == groups:
        return stated
    if groups == 1:
        return -1
    if groups < 1 or columns % groups:
        raise EdgeqError(f"{groups} groups in rows of {columns}", where=where, hint="Its files contradict each other")
    return columns // groups
