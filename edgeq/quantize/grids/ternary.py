"""The ternary grid: -scale, 0 or scale, one scale a group or row.

`search` is exact. Under any scale the weights that keep a sign are the largest ones by magnitude (those above half
the scale); given how many do, the best scale is their importance-weighted mean magnitude, and the error falls by
`sum(h |w|)**2 / sum(h)` over them. So one pass over the sorted magnitudes finds the optimum that Ternary Weight
Networks (Li & Liu, arXiv 1605.04711) approximate with a threshold of 0.7 of the mean.
"""

from __future__ import annotations

import numpy as np

from edgeq.checkpoint.tensor import Parameters
from edgeq.quantize.grids.codebook import refuses
from edgeq.quantize.grids.double import doubled
from edgeq.quantize.grids.groups import Finder, Floats, accepted, by_groups, stored
from edgeq.scheme import Grid

__all__ = ["absmean", "min_max", "refuses", "search"]

RIDGE = np.float32(1e-6)  # of the mean importance: a group whose inputs are all dead still has one solution


def search(weight: Floats, importance: Floats | None, grid: Grid) -> Parameters:
    """The scales with the least `sum(importance * (weight - dequantized)**2)`.

    Args:
        weight: float32 (rows, columns).
        importance: float32 (columns,), not negative: the mean square of each input channel; None: all alike.

    Raises:
        EdgeqError: the grid or the shape is refused, or a weight is not finite.
    """
    return _found(weight, importance, grid, _best_groups)


def absmean(weight: Floats, _: Floats | None, grid: Grid) -> Parameters:
    """BitNet b1.58's scales (arXiv 2402.17764): the mean magnitude of the group. A search without importance."""
    return _found(weight, None, grid, _absmean_groups)


def min_max(weight: Floats, grid: Grid) -> Parameters:
    """The scales that clip nothing: each group's largest magnitude, as ggml's ternary types have it."""
    return _found(weight, None, grid, _absmax_groups)


def _found(weight: Floats, importance: Floats | None, grid: Grid, find: Finder) -> Parameters:
    found = by_groups(accepted(weight, refuses(grid, weight.shape)), importance, grid, find)
    if grid.super_size is None:
        return found
    return doubled(weight, importance, grid, found.scales, fine=find is _best_groups)


def _absmean_groups(w: Floats, _: Floats | None, grid: Grid, axis: int) -> tuple[Floats, Floats]:
    scale = stored(np.abs(w).mean(axis, keepdims=True), grid)
    return scale, scale


def _absmax_groups(w: Floats, _: Floats | None, grid: Grid, axis: int) -> tuple[Floats, Floats]:
    scale = stored(np.abs(w).max(axis, keepdims=True), grid)
    return scale, scale


def _best_groups(w: Floats, h: Floats | None, grid: Grid, axis: int) -> tuple[Floats, Floats]:
    size = np.abs(w)
    if h is None:
        size = -np.sort(-size, axis)
        mass = np.ones_like(size)
    else:
        order = np.argsort(-size, axis)
        size = np.take_along_axis(size, order, axis)
        mass = np.take_along_axis(h + RIDGE, order, axis)
    along = np.cumsum(size * mass, axis, dtype=np.float64)
    mass = np.cumsum(mass, axis, dtype=np.float64)
    kept = np.argmax(along * along / mass, axis, keepdims=True)
    scale = np.take_along_axis(along, kept, axis) / np.take_along_axis(mass, kept, axis)
    stored_scale = stored(scale.astype(np.float32), grid)
    return stored_scale, stored_scale
