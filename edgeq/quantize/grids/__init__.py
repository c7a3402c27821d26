"""Grid searches: which values a group of weights may take, and how its parameters are found."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import numpy.typing as npt

from edgeq.checkpoint.tensor import Parameters
from edgeq.scheme import Grid

Floats = npt.NDArray[np.float32]


def kind_of(grid: Grid) -> str:
    """The module of this package that searches such grids."""
    if grid.codebook == "ternary":
        return "ternary"
    if grid.super_size is not None and grid.kind == "gguf":
        return "superblock"
    if grid.codebook is not None:
        return "codebook"
    return "affine" if grid.zero == "float" else "uniform"


def find(weight: Floats, importance: Floats | None, grid: Grid) -> Parameters:
    """The parameters of any grid by its own search: float32 (rows, columns), importance (columns,) or None.

    Raises:
        EdgeqError: the grid or the shape is refused, or a weight is not finite.
    """
    found: Parameters = import_module(f"{__name__}.{kind_of(grid)}").search(weight, importance, grid)
    return found


def refuses(grid: Grid, shape: tuple[int, ...]) -> str | None:
    """Why a tensor of this shape can't be stored on this grid, or None when it can."""
    if grid.kind == "float":
        return None
    why: str | None = import_module(f"{__name__}.{kind_of(grid)}").refuses(grid, shape)
    return why
