"""Uniform grids: where the steps of `(code - zero_point) * scale` lie, found group by group.

`min_max` spans the group's range. `search` minimises the importance-weighted squared error over many scales and,
for each, the integer zero points that can win; the idea of searching the two jointly is NeUQI's (arXiv 2505.17595).
Scales are rounded to the dtype they are stored in before an error is computed: what is optimised is what runs.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgeq.checkpoint.tensor import Parameters
from edgeq.quantize.grids.groups import Floats, accepted, by_groups, refused_groups, stored
from edgeq.scheme import Grid

# Scales of the starts relative to the one that spans the group, from the widest to the narrowest: the fewer bits, the
# more clipping pays, and it pays most where few channels carry the importance. Measured on real layers and
# importances at 2 to 5 bits: within 1 % of ten times as many.
WIDEST = 1.25
NARROWEST = {2: 0.18, 3: 0.25, 4: 0.32, 5: 0.4}
WIDTHS = {True: 16, False: 12}  # on symmetric grids; on others
PLACES = (-1.5, -0.5, 0.5, 1.5)  # of zero points, in steps from the one that centres the window;
STEP = 0.25  # a step, of the way from clipping above only to clipping below only, and at least 1
TURNS = {True: 2, False: 1}
REFITS = 3
BLOCKS = 2  # a candidate takes many steps on whole groups, which are few: more at once keeps numpy busy


def refuses(grid: Grid, shape: tuple[int, ...]) -> str | None:
    """Why a tensor of this shape can't be stored on this grid, or None when it can."""
    if len(shape) != 2:
        return f"a uniform grid needs a matrix, this has {len(shape)} dimensions"
    if grid.kind not in ("int", "gguf") or grid.codebook or grid.zero == "float" or not 2 <= grid.bits <= 8:
        return f"{grid} is not a uniform grid of 2 to 8 bits with integer zero points"
    if grid.super_size is not None:
        return f"{grid.ggml_type or grid} has super-blocks"
    return refused_groups(grid, shape)


def search(weight: Floats, importance: Floats | None, grid: Grid) -> Parameters:
    """The parameters with the least `sum(importance * (weight - dequantized)**2)` that a fine search finds.

    Never worse than `min_max`, which is among the candidates.

    Args:
        weight: float32 (rows, columns).
        importance: float32 (columns,), not negative: the mean square of each input channel; None: all alike.

    Raises:
        EdgeqError: the grid or the shape is refused, or a weight is not finite.
    """
    return by_groups(accepted(weight, refuses(grid, weight.shape)), importance, grid, _search_groups, blocks=BLOCKS)


def min_max(weight: Floats, grid: Grid) -> Parameters:
    """The parameters whose range spans each group, zero included."""
    return by_groups(accepted(weight, refuses(grid, weight.shape)), None, grid, min_max_groups)


def min_max_groups(w: Floats, _: Floats | None, grid: Grid, axis: int) -> tuple[Floats, Floats]:
    low = np.minimum(w.min(axis, keepdims=True), 0)
    high = np.maximum(w.max(axis, keepdims=True), 0)
    top = np.float32(grid.levels - 1)
    if grid.symmetric:
        middle = np.float32(grid.levels >> 1)
        scale = stored(np.maximum(-low / middle, high / (middle - 1)), grid)
        return scale, np.full_like(scale, middle)
    scale = stored((high - low) / top, grid)
    return scale, np.clip(np.rint(-low / scale), 0, top)


def _search_groups(w: Floats, h: Floats | None, grid: Grid, axis: int) -> tuple[Floats, Floats]:
    state = _Best(w, h, grid, axis)
    base, zero = min_max_groups(w, None, grid, axis)
    state.try_(base, zero)
    low = np.minimum(w.min(axis, keepdims=True), 0)
    high = np.maximum(w.max(axis, keepdims=True), 0)
    starts = _symmetric_starts if grid.symmetric else _asymmetric_starts
    narrowest = NARROWEST.get(grid.bits, 0.7)
    for ratio in np.linspace(WIDEST, narrowest, WIDTHS[grid.symmetric], dtype=np.float32):
        for scale, zero in starts(base * ratio, low, high, grid):
            for _ in range(TURNS[grid.symmetric]):
                scale = state.fit(scale, zero)
            state.try_(stored(scale, grid), zero)
    for _ in range(REFITS):
        state.try_(stored(state.fit(state.scale, state.zero), grid), state.zero)
    return state.scale, state.zero


def _asymmetric_starts(scale: Floats, low: Floats, high: Floats, grid: Grid) -> Iterator[tuple[Floats, Floats]]:
    """For a scale the window of codes is as wide as it is; zero points centre it, or clip more of one side."""
    top = np.float32(grid.levels - 1)
    at_low, at_high = -low / scale, top - high / scale  # the zero points whose window ends with the group
    step = np.maximum(np.abs(at_high - at_low) * np.float32(STEP), 1)
    for place in PLACES:
        yield scale, np.clip(np.rint((at_low + at_high) / 2 + step * np.float32(place)), 0, top)


def _symmetric_starts(scale: Floats, low: Floats, high: Floats, grid: Grid) -> Iterator[tuple[Floats, Floats]]:
    """Either side of zero may get the extra level: the sign of the scale decides."""
    zero = np.full_like(scale, grid.levels >> 1)
    yield scale, zero
    yield -scale, zero


class _Best:
    """The best parameters so far of every group, and buffers that are used again for each candidate."""

    def __init__(self, w: Floats, h: Floats | None, grid: Grid, axis: int) -> None:
        self.w, self.h, self.grid, self.axis = w, h, grid, axis
        self.top = np.float32(grid.levels - 1)
        shape = (1, w.shape[1]) if axis == 0 else (w.shape[0], 1)
        self.error = np.full(shape, np.inf, np.float32)
        self.scale = np.ones(shape, np.float32)
        self.zero = np.zeros(shape, np.float32)
        self._wh = w if h is None else w * h
        self._x, self._steps, self._q = np.empty_like(w), np.empty_like(w), np.empty_like(w)

    def try_(self, scale: Floats, *zeros: Floats) -> None:
        """Take the scale with any of the zero points wherever they are better than the best so far."""
        self._measure(scale)
        for zero in zeros:
            if not self.grid.symmetric:
                zero = np.clip(zero, 0, self.top)
            q = self._clipped(zero)
            np.subtract(q, self._x, out=q)
            np.multiply(q, q, out=q)
            if self.h is not None:
                np.multiply(q, self.h, out=q)
            error = q.sum(self.axis, keepdims=True, dtype=np.float32) * (scale * scale)
            better = error < self.error
            np.copyto(self.error, error, where=better)
            np.copyto(self.scale, scale, where=better)
            # A new array: the caller goes on with the old one.
            self.zero = np.where(better, zero, self.zero)

    def _measure(self, scale: Floats) -> None:
        """`_x`: the weights in steps of the scale; `_steps`: those rounded."""
        np.multiply(self.w, 1 / scale, out=self._x)
        np.rint(self._x, out=self._steps)

    def _clipped(self, zero: Floats) -> Floats:
        """Codes minus zero point, in a buffer that the next call overwrites."""
        np.maximum(self._steps, -zero, out=self._q)
        np.minimum(self._q, self.top - zero, out=self._q)
        return self._q

    def fit(self, scale: Floats, zero: Floats) -> Floats:
        """The least-squares scale of the codes that are nearest under this one, `sum(h w q) / sum(h q q)`, as it is
        before it is stored."""
        self._measure(scale)
        q = self._clipped(zero)
        along = self._dot(q, self._wh)
        np.multiply(q, q, out=q)
        second = q.sum(self.axis, keepdims=True) if self.h is None else self._dot(q, self.h)
        fitted: Floats = np.divide(along, second, out=scale.copy(), where=second > 0)
        return fitted

    def _dot(self, a: Floats, b: Floats) -> Floats:
        total: Floats = np.einsum("ij,ij->j" if self.axis == 0 else "ij,ij->i", a, b)
        return np.expand_dims(total, self.axis)
