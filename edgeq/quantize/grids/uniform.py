"""Uniform grids: where the steps of `(code - zero_point) * scale` lie, found group by group.

`min_max` spans the group's range. `search` minimises the importance-weighted squared error over many scales and,
for each, the integer zero points that can win; the idea of searching the two jointly is NeUQI's (arXiv 2505.17595).
Scales are rounded to the dtype they are stored in before an error is computed: what is optimised is what runs.
"""

from __future__ import annotations

import numpy as np

from edgeq.checkpoint.tensor import Parameters
from edgeq.errors import EdgeqError
from edgeq.quantize.grids.groups import Floats, by_groups, refused_groups, stored
from edgeq.scheme import Grid

REFITS = 3


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
    return by_groups(accepted(weight, grid), importance, grid, _search_groups)


def min_max(weight: Floats, grid: Grid) -> Parameters:
    """The parameters whose range spans each group, zero included."""
    return by_groups(accepted(weight, grid), None, grid, min_max_groups)


def accepted(weight: Floats, grid: Grid) -> Floats:
    """The weight, where this grid takes it."""
    why = refuses(grid, weight.shape)
    if why:
        raise EdgeqError(f"this weight can't be quantized: {why}")
    return weight


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
    candidates = _symmetric_candidates if grid.symmetric else _asymmetric_candidates
    coarse, step = _coarse(grid.bits)
    candidates(state, base, low, high, coarse)
    # Around the best scale, finer than the coarse step, with the zero points next to the best.
    for ratio in (1 + step * t for t in (-0.75, -0.5, -0.25, 0.25, 0.5, 0.75)):
        scale = stored(state.scale * np.float32(ratio), grid)
        zero = state.zero
        state.try_(scale, *([zero] if grid.symmetric else [zero, zero - 1, zero + 1]))
    for _ in range(REFITS):
        state.refit()
    return state.scale, state.zero


def _coarse(bits: int) -> tuple[list[float], float]:
    """Shrink factors of the spanning scale, and their relative step: the fewer the bits, the more clipping pays."""
    least, count = {2: (0.25, 18), 3: (0.35, 18), 4: (0.45, 16), 5: (0.6, 12)}.get(bits, (0.8, 8))
    factors = np.geomspace(1.06, least, count)
    return [float(f) for f in factors], float(factors[0] / factors[1] - 1)


def _asymmetric_candidates(state: _Best, base: Floats, low: Floats, high: Floats, ratios: list[float]) -> None:
    """For a scale the window of codes is as wide as it is; the zero points tried centre it, or clip one side more."""
    top = np.float32(state.grid.levels - 1)
    for ratio in ratios:
        scale = stored(base * np.float32(ratio), state.grid)
        centre = (top - (low + high) / scale) / 2
        floor = np.floor(centre)
        state.try_(scale, floor, floor + 1)


def _symmetric_candidates(state: _Best, base: Floats, low: Floats, high: Floats, ratios: list[float]) -> None:
    """Either side of zero may get the extra level: the sign of the scale decides."""
    middle = np.float32(state.grid.levels >> 1)
    plus = np.maximum(-low / middle, high / (middle - 1))
    minus = -np.maximum(-low / (middle - 1), high / middle)
    for ratio in ratios:
        state.try_(stored(plus * np.float32(ratio), state.grid), state.zero)
        state.try_(stored(minus * np.float32(ratio), state.grid), state.zero)


class _Best:
    """The best parameters so far of every group, and buffers that are used again for each candidate."""

    def __init__(self, w: Floats, h: Floats | None, grid: Grid, axis: int) -> None:
        self.w, self.h, self.grid, self.axis = w, h, grid, axis
        self.top = np.float32(grid.levels - 1)
        shape = (1, w.shape[1]) if axis == 0 else (w.shape[0], 1)
        self.error = np.full(shape, np.inf, np.float32)
        self.scale = np.ones(shape, np.float32)
        self.zero = np.zeros(shape, np.float32)
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

    def refit(self) -> None:
        """Given the best codes, the least-squares scale is sum(h w q) / sum(h q q)."""
        self._measure(self.scale)
        q = self._clipped(self.zero)
        weighted = q if self.h is None else q * self.h
        below = (weighted * q).sum(self.axis, keepdims=True)
        above = (weighted * self.w).sum(self.axis, keepdims=True)
        scale = np.divide(above, below, out=self.scale.copy(), where=below > 0)
        self.try_(stored(scale, self.grid), self.zero)
