"""Codebook grids: `table[code] * scale`, the scale found group by group (nf4, fp4, IQ4_NL, ternary).

`search` minimises the importance-weighted squared error. For given codes the best scale is
`sum(h w t) / sum(h t t)` over the table's values t; for a given scale the best codes are the nearest ones. From each
of many starts, of both signs where the table is not symmetric, the two take turns, and the best of what is seen
stays. Scales are rounded to their dtype before an error is computed.

Double quantization (QLoRA, arXiv 2305.14314, section 3) stores the scales themselves as 8-bit codes; here they are
int8 codes on one scale a row, and are chosen again for the rounding of that scale.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgeq.checkpoint.codebooks import codebook
from edgeq.checkpoint.tensor import Parameters
from edgeq.quantize.grids.double import doubled
from edgeq.quantize.grids.groups import SMALLEST, Floats, accepted, by_groups, refused_groups, stored
from edgeq.scheme import Grid

# Scales of the starts, relative to the one that spans the group: wider ones pay too, where values lie closer around
# zero. Measured on real layers and importances: within 0.3 % of six times as many.
WIDEST, NARROWEST, WIDTHS = 2.0, 0.25, 18
TURNS = 3
POLISH = 3
BLOCKS = 2  # a candidate takes many steps on whole groups, which are few: more at once keeps numpy busy
BINS = 4096  # of the table that stands for the search of the nearest value while starts are compared
RIDGE = np.float32(1e-6)  # of the mean importance: a group whose inputs are all dead still has one solution


def refuses(grid: Grid, shape: tuple[int, ...]) -> str | None:
    """Why a tensor of this shape can't be stored on this grid, or None when it can."""
    if len(shape) != 2:
        return f"a codebook needs a matrix, this has {len(shape)} dimensions"
    if grid.kind not in ("codebook", "gguf") or grid.codebook is None:
        return f"{grid} has no codebook"
    if len(codebook(grid.codebook)) > grid.levels:
        return f"{grid.bits} bits are too few for the codebook {grid.codebook}"
    if grid.super_size not in (None, -1) or (grid.super_size == -1 and grid.scale_bits != 8):
        return f"{grid.ggml_type or grid} has super-blocks"
    return refused_groups(grid, shape)


def search(weight: Floats, importance: Floats | None, grid: Grid) -> Parameters:
    """The scales with the least `sum(importance * (weight - dequantized)**2)` that the search finds.

    Never worse than `min_max`, which is among the candidates (before the scales are quantized a second time).

    Args:
        weight: float32 (rows, columns).
        importance: float32 (columns,), not negative: the mean square of each input channel; None: all alike.

    Raises:
        EdgeqError: the grid or the shape is refused, or a weight is not finite.
    """
    found = by_groups(accepted(weight, refuses(grid, weight.shape)), importance, grid, search_groups, blocks=BLOCKS)
    return found if grid.super_size is None else doubled(weight, importance, grid, found.scales)


def min_max(weight: Floats, grid: Grid) -> Parameters:
    """The scales that take each group's largest weight to the end of the table: absmax, where that is symmetric."""
    found = by_groups(accepted(weight, refuses(grid, weight.shape)), None, grid, _min_max_groups)
    return found if grid.super_size is None else doubled(weight, None, grid, found.scales, fine=False)


def _table(grid: Grid) -> Floats:
    assert grid.codebook is not None
    return codebook(grid.codebook)


def _spanning(w: Floats, table: Floats, axis: int) -> tuple[Floats, Floats]:
    """The least positive and the least negative scale (by magnitude) that clip nothing."""
    low, high = w.min(axis, keepdims=True), w.max(axis, keepdims=True)
    bottom, top = table[0], table[-1]
    return np.maximum(low / bottom, high / top), -np.maximum(-low / top, -high / bottom)


def _min_max_groups(w: Floats, _: Floats | None, grid: Grid, axis: int) -> tuple[Floats, Floats]:
    scale = stored(_spanning(w, _table(grid), axis)[0], grid)
    return scale, scale


def search_groups(w: Floats, h: Floats | None, grid: Grid, axis: int) -> tuple[Floats, Floats]:
    """The search on laid-out groups: importances may differ from weight to weight."""
    table = _table(grid)
    scales = _Scales(w, h, grid, axis)
    least = np.float32(SMALLEST[grid.scale_dtype])
    symmetric = bool(np.array_equal(table, -table[::-1]))
    for start in _spanning(w, table, axis)[: 1 if symmetric else 2]:
        start = np.copysign(np.maximum(np.abs(start), least), start)
        for width in np.linspace(WIDEST, NARROWEST, WIDTHS, dtype=np.float32):
            scale = start * width
            for _ in range(TURNS - 1):
                scale = scales.fit(scale)
            scales.take(stored(scale, grid))
    best = _polished(scales, _min_max_groups(w, None, grid, axis)[0])
    return best, best


def _polished(scales: _Scales, best: Floats) -> Floats:
    """The best of the search and of a first scale, refitted a few times, by errors with the exactly nearest codes."""
    least = scales.error(best)
    candidate = scales.scale
    for _ in range(POLISH):
        error = scales.error(candidate)
        better = error < least
        least, best = np.where(better, error, least), np.where(better, candidate, best)
        candidate = stored(scales.fit(best), scales.grid)
    return best


class _Scales:
    """Fits of all groups at once: the best scale so far, and buffers used for each candidate."""

    def __init__(self, w: Floats, h: Floats | None, grid: Grid, axis: int) -> None:
        self.w, self.grid, self.axis = w, grid, axis
        self.table = _table(grid)
        self._given = h
        self.h = np.ones_like(w) if h is None else h + RIDGE
        self._wh = self.h * w
        self.energy = self._dot(self._wh, w)
        self.least = np.full(self.energy.shape, np.inf, np.float32)
        self.scale = np.ones(self.energy.shape, np.float32)
        self._bins, self._per_unit = _bins(self.table)
        self._x, self._at = np.empty_like(w), np.empty(w.shape, np.intp)

    def fit(self, scale: Floats) -> Floats:
        """The least-squares scale of the codes nearest under this one, not rounded."""
        along, second = self._sums(scale)
        fitted: Floats = np.divide(along, second, out=scale.copy(), where=second > 0)
        return fitted

    def take(self, scale: Floats) -> None:
        """Take the scale, which is as stored, wherever it is better than the best so far."""
        along, second = self._sums(scale)
        error = self.energy + scale * (scale * second - 2 * along)
        better = error < self.least
        np.copyto(self.least, error, where=better)
        np.copyto(self.scale, scale, where=better)

    def _sums(self, scale: Floats) -> tuple[Floats, Floats]:
        """`sum(h w t)` and `sum(h t t)` over the values t nearest to the weights, to within a bin."""
        x = self._x
        np.multiply(self.w, np.float32(self._per_unit) / scale, out=x)
        np.subtract(x, np.float32(self._per_unit) * self.table[0] - np.float32(0.5), out=x)
        np.clip(x, np.float32(0), np.float32(BINS), out=x)
        np.copyto(self._at, x, casting="unsafe")
        np.take(self._bins, self._at, out=x, mode="clip")
        along = self._dot(self._wh, x)
        np.multiply(x, x, out=x)
        return along, self._dot(self.h, x)

    def error(self, scale: Floats) -> Floats:
        """The weighted squared error of each group, from the residuals."""
        middles = (self.table[1:] + self.table[:-1]) / 2
        off = self.table[np.searchsorted(middles, self.w * np.reciprocal(scale))] * scale - self.w
        return self._dot(off, off if self._given is None else off * self._given)

    def _dot(self, a: Floats, b: Floats) -> Floats:
        total: Floats = np.einsum("ij,ij->j" if self.axis == 0 else "ij,ij->i", a, b)
        return np.expand_dims(total, self.axis)


def _bins(table: Floats) -> tuple[npt.NDArray[np.float32], float]:
    """The nearest value of the table at BINS + 1 places from its first value to its last, and bins a unit."""
    places = np.linspace(table[0], table[-1], BINS + 1, dtype=np.float64)
    nearest = np.searchsorted((table[1:] + table[:-1]) / 2, places)
    return table[nearest], BINS / float(table[-1] - table[0])
