"""Scales of a codebook grid stored as int8 codes on one super-scale a row (QLoRA's double quantization)."""

from __future__ import annotations

import numpy as np

from edgeq.checkpoint.codebooks import codebook
from edgeq.checkpoint.tensor import Array, Parameters
from edgeq.quantize.grids.groups import SCALE_DTYPE, Floats, checked, in_threads, row_blocks, stored
from edgeq.scheme import Grid

MOST = np.float32(127)
STRETCHES = np.linspace(0.98, 1.08, 21, dtype=np.float32)  # of the super-scale whose largest code is 127
SPREAD = (0, -1, 1)  # neighbours of the nearest code that are tried


def doubled(weight: Floats, importance: Floats | None, grid: Grid, scales: Array, *, fine: bool = True) -> Parameters:
    """int8 codes for given scales, chosen by the weights' error under the super-scale as it is stored.

    A super-scale is taken for how near its multiples come to the row's scales, each weighted by the curvature
    `sum(h t t)` of its group's error; then every group takes the best of the codes around its own.

    Args:
        weight: float32 (rows, columns).
        importance: float32 (columns,) or None.
        scales: (rows, groups), of either sign.
        fine: False rounds the scales and no more: the largest gets the code 127.
    """
    rows, columns = weight.shape
    weights = checked(importance, columns)
    size = columns if grid.group_size == -1 else grid.group_size
    codes = np.empty(scales.shape, np.int8)
    supers = np.empty((rows, 1), SCALE_DTYPE[grid.scale_dtype])

    @np.errstate(over="ignore", invalid="ignore")
    def work(part: slice) -> None:
        w, s = weight[part], scales[part].astype(np.float32)
        if not fine:
            supers[part] = super_scale = stored(np.abs(s).max(1, keepdims=True) / MOST, grid)
            codes[part] = np.clip(np.rint(s / super_scale), -MOST, MOST)
            return
        t = _nearest(w, s, grid, size)
        curvature = _by_group(t * t, weights, size)
        supers[part] = super_scale = _super_scale(s, curvature, grid)
        nearest = np.rint(s / super_scale)
        best, least = nearest, np.full_like(s, np.inf)
        for step in SPREAD:
            code = np.clip(nearest + np.float32(step), -MOST, MOST)
            scale = super_scale * code
            off = _nearest(w, scale, grid, size) * _spread(scale, size, columns) - w
            error = _by_group(off * off, weights, size)
            best, least = np.where(error < least, code, best), np.minimum(error, least)
        codes[part] = np.clip(best, -MOST, MOST)

    in_threads(work, row_blocks(rows, columns))
    return Parameters(codes, None, supers)


def _super_scale(scales: Floats, curvature: Floats, grid: Grid) -> Floats:
    """(rows, 1), as stored: of several, the one with the least weighted error of the scales it gives."""
    base = np.abs(scales).max(1, keepdims=True) / MOST
    best, least = stored(base, grid), np.full_like(base, np.inf)
    for stretch in STRETCHES:
        one = stored(base * stretch, grid)
        off = np.clip(np.rint(scales / one), -MOST, MOST) * one - scales
        error = (curvature * off * off).sum(1, keepdims=True)
        best, least = np.where(error < least, one, best), np.minimum(error, least)
    return best


def _nearest(w: Floats, scales: Floats, grid: Grid, size: int) -> Floats:
    """The table's value nearest to each weight."""
    assert grid.codebook is not None
    table = codebook(grid.codebook)
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales != 0)
    found: Floats = table[np.searchsorted((table[1:] + table[:-1]) / 2, w * _spread(inverse, size, w.shape[1]))]
    return found


def _spread(per_group: Floats, size: int, columns: int) -> Floats:
    return np.repeat(per_group, size, axis=1)[:, :columns]


def _by_group(values: Floats, weights: Floats | None, size: int) -> Floats:
    """Sums over the groups of a row, weighted by column."""
    weighted = values if weights is None else values * weights
    total: Floats = np.add.reduceat(weighted, np.arange(0, values.shape[1], size), axis=1)
    return total
