"""Grid searches: which scales and offsets a weight gets, for every kind of grid. One module a kind."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import ModuleType

import numpy as np
import numpy.typing as npt

from edgeq.checkpoint.tensor import Parameters
from edgeq.errors import EdgeqError
from edgeq.scheme import Grid

Floats = npt.NDArray[np.float32]


def find(weight: Floats, importance: Floats | None, grid: Grid) -> Parameters:
    """The parameters with the least `sum(importance * (weight - nearest value)**2)` that the grid's search finds.

    Args:
        weight: float32 (rows, columns).
        importance: float32 (columns,), not negative: the mean square of each input channel; None: all alike.

    Raises:
        EdgeqError: the grid or the shape is refused, or a weight is not finite.
    """
    return search_for(grid)(weight, importance, grid)


def min_max(weight: Floats, grid: Grid) -> Parameters:
    """The parameters that span each group's range: the baseline of every kind of grid.

    Raises:
        EdgeqError: the grid or the shape is refused, or a weight is not finite.
    """
    found: Parameters = _module(grid).min_max(weight, grid)
    return found


def search_for(grid: Grid) -> Callable[[Floats, Floats | None, Grid], Parameters]:
    """The fine search of the grid's kind.

    Raises:
        EdgeqError: a float grid, which has nothing to search.
    """
    search: Callable[[Floats, Floats | None, Grid], Parameters] = _module(grid).search
    return search


def refuses(grid: Grid, shape: tuple[int, ...]) -> str | None:
    """Why a tensor of this shape can't be stored on this grid, or None when it can. Float grids take every shape."""
    if grid.kind == "float":
        return None
    why: str | None = _module(grid).refuses(grid, shape)
    return why


def kind_of(grid: Grid) -> str:
    """The module of this package that searches such grids.

    Raises:
        EdgeqError: a float grid.
    """
    if grid.kind == "float":
        raise EdgeqError("a float grid has no scales to search", hint="It stores the weights as they are")
    if grid.super_size not in (None, -1):
        return "superblock"
    if grid.codebook is not None:
        return "ternary" if grid.codebook == "ternary" else "codebook"
    return "affine" if grid.zero == "float" else "uniform"


def _module(grid: Grid) -> ModuleType:
    """The module with `search`, `min_max` and `refuses` for the grid's kind, imported when first asked for."""
    return import_module(f"{__name__}.{kind_of(grid)}")
