"""Affine grids: `code * scale + minimum`, both of them floats, found group by group (also Q4_1 and Q5_1).

`search` minimises the importance-weighted squared error. For given codes the best scale and minimum are a weighted
line fit of the weights on the codes; for a given scale and minimum the best codes are the nearest ones. From each of
many starts the two take turns (as in Lloyd's algorithm), and the best of what is seen stays. llama.cpp's search for
block types with minima has the same fit, once for each start and with minima not above zero, which only its
super-blocks need.

Scales and minima are rounded to their dtype before an error is computed: what is optimised is what runs.
"""

from __future__ import annotations

import numpy as np

from edgeq.checkpoint.tensor import Parameters
from edgeq.quantize.grids.groups import SMALLEST, Floats, accepted, by_groups, refused_groups, stored, stored_minimum
from edgeq.scheme import Grid

# Windows of the starts: how wide they are relative to the group's range, and where they lie in what is cut off
# (0: at its lower end). Measured on real layers and importances at 2 to 4 bits: within 0.5 % of ten times as many.
NARROWEST = {2: 0.3, 3: 0.35, 4: 0.45, 5: 0.6}
WIDEST = 1.15
WIDTHS = 8
PLACES = (0.2, 0.4, 0.6, 0.8)
TURNS = 4
POLISH = 3
BLOCKS = 2  # a candidate takes many steps on whole groups, which are few: more at once keeps numpy busy
RIDGE = np.float32(1e-6)  # of the mean importance: a group whose inputs are all dead still has one solution


def refuses(grid: Grid, shape: tuple[int, ...]) -> str | None:
    """Why a tensor of this shape can't be stored on this grid, or None when it can."""
    if len(shape) != 2:
        return f"an affine grid needs a matrix, this has {len(shape)} dimensions"
    if grid.kind not in ("int", "gguf") or grid.codebook or grid.zero != "float" or not 2 <= grid.bits <= 8:
        return f"{grid} is not an affine grid of 2 to 8 bits"
    if grid.super_size is not None:
        return f"{grid.ggml_type or grid} has super-blocks"
    return refused_groups(grid, shape)


def search(weight: Floats, importance: Floats | None, grid: Grid) -> Parameters:
    """The scales and minima with the least `sum(importance * (weight - dequantized)**2)` that the search finds.

    Never worse than `min_max`, which is among the candidates.

    Args:
        weight: float32 (rows, columns).
        importance: float32 (columns,), not negative: the mean square of each input channel; None: all alike.

    Raises:
        EdgeqError: the grid or the shape is refused, or a weight is not finite.
    """
    return by_groups(accepted(weight, refuses(grid, weight.shape)), importance, grid, search_groups, blocks=BLOCKS)


def min_max(weight: Floats, grid: Grid) -> Parameters:
    """The parameters whose levels span each group from its least to its largest weight."""
    return by_groups(accepted(weight, refuses(grid, weight.shape)), None, grid, min_max_groups)


def min_max_groups(w: Floats, _: Floats | None, grid: Grid, axis: int) -> tuple[Floats, Floats]:
    low, high = w.min(axis, keepdims=True), w.max(axis, keepdims=True)
    return stored((high - low) / np.float32(grid.levels - 1), grid), stored_minimum(low, grid)


def search_groups(w: Floats, h: Floats | None, grid: Grid, axis: int) -> tuple[Floats, Floats]:
    """The search on laid-out groups: importances may differ from weight to weight."""
    base = min_max_groups(w, None, grid, axis)
    lines = _Lines(w, h, grid, axis)
    lines.take(*base)
    low, high = w.min(axis, keepdims=True), w.max(axis, keepdims=True)
    extent, top = np.maximum(high - low, SMALLEST[grid.scale_dtype]), np.float32(grid.levels - 1)
    for width in np.linspace(WIDEST, NARROWEST.get(grid.bits, 0.8), WIDTHS, dtype=np.float32):
        for place in PLACES:
            scale = extent * (width / top)
            minimum = low + extent * np.float32((1 - width) * place)
            for _ in range(TURNS - 1):
                scale, minimum = lines.fit(scale, minimum)
            lines.take(*lines.stored(scale, minimum))
    return _polished(lines, base)


def _polished(lines: _Lines, base: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    """The best of the search and `base`, refitted a few times, by errors without cancellation."""
    scale, minimum = base
    least = lines.error(scale, minimum)
    candidate = lines.scale, lines.minimum
    for _ in range(POLISH):
        error = lines.error(*candidate)
        better = error < least
        least = np.where(better, error, least)
        scale, minimum = np.where(better, candidate[0], scale), np.where(better, candidate[1], minimum)
        candidate = lines.stored(*lines.fit(scale, minimum))
    return scale, minimum


class _Lines:
    """Line fits of all groups at once: the best scale and minimum so far, and buffers used for each candidate.

    Weights are counted from their weighted mean and codes from the level nearest to it, so that single precision
    suffices for the fit's sums.
    """

    def __init__(self, w: Floats, h: Floats | None, grid: Grid, axis: int) -> None:
        self.grid, self.axis = grid, axis
        self.top = np.float32(grid.levels - 1)
        self._given = w, h
        self.h = np.ones_like(w) if h is None else h + RIDGE
        self.mass = self._sum(self.h)
        self.mean = self._sum(self.h * w) / self.mass
        self.w = w - self.mean
        self._wh = self.h * self.w
        self._energy = self._dot(self._wh, self.w)
        shape = self.mass.shape
        self.least = np.full(shape, np.inf, np.float32)
        self.scale, self.minimum = np.ones(shape, np.float32), np.zeros(shape, np.float32)
        self._q, self._hq = np.empty_like(w), np.empty_like(w)

    def fit(self, scale: Floats, minimum: Floats) -> tuple[Floats, Floats]:
        """Scale and minimum of the line through the weights over their nearest codes, not rounded."""
        return self._line(*self._encode(scale, minimum), scale)

    def take(self, scale: Floats, minimum: Floats) -> tuple[Floats, Floats]:
        """Take the parameters, which are as stored, wherever they are better than the best so far; then `fit`."""
        level, place, first, second, along = self._encode(scale, minimum)
        offset = scale * (level - place)  # what level `level` stands for, from the mean
        error = self._energy + scale * (scale * second - 2 * along)
        error += offset * (2 * scale * first + offset * self.mass)
        better = error < self.least
        np.copyto(self.least, error, where=better)
        np.copyto(self.scale, scale, where=better)
        np.copyto(self.minimum, minimum, where=better)
        return self._line(level, place, first, second, along, scale)

    def _encode(self, scale: Floats, minimum: Floats) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        """The weights' nearest codes, counted from `level`, as weighted sums: of codes, of their squares, and of
        their products with the weights. `place`: where the weighted mean lies among the codes."""
        inverse = np.reciprocal(scale)
        place = (self.mean - minimum) * inverse
        level = np.rint(place)
        q, hq = self._q, self._hq
        np.multiply(self.w, inverse, out=q)
        np.add(q, place - level, out=q)
        np.rint(q, out=q)
        np.maximum(q, -level, out=q)  # np.clip is ten times slower with bounds that differ between groups
        np.minimum(q, self.top - level, out=q)
        np.multiply(q, self.h, out=hq)
        return level, place, self._sum(hq), self._dot(hq, q), self._dot(hq, self.w)

    def _line(
        self, level: Floats, _: Floats, first: Floats, second: Floats, along: Floats, scale: Floats
    ) -> tuple[Floats, Floats]:
        bulk = self.mass * second
        spread = bulk - first * first
        fitted = np.divide(self.mass * along, spread, out=scale.copy(), where=spread > 1e-5 * bulk)
        return fitted, self.mean - fitted * (first / self.mass + level)

    def stored(self, scale: Floats, minimum: Floats) -> tuple[Floats, Floats]:
        return stored(scale, self.grid), stored_minimum(minimum, self.grid)

    def error(self, scale: Floats, minimum: Floats) -> Floats:
        """The weighted squared error of each group, from the residuals."""
        w, h = self._given
        q = (w - minimum) * np.reciprocal(scale)
        np.rint(q, out=q)
        np.clip(q, 0, self.top, out=q)
        off = q * scale + minimum - w
        return self._dot(off, off if h is None else off * h)

    def _sum(self, a: Floats) -> Floats:
        total: Floats = a.sum(self.axis, keepdims=True)
        return total

    def _dot(self, a: Floats, b: Floats) -> Floats:
        total: Floats = np.einsum("ij,ij->j" if self.axis == 0 else "ij,ij->i", a, b)
        return np.expand_dims(total, self.axis)
