"""HQQ (Badri & Shaji, Half-Quadratic Quantization, 2023): the scale is fixed, the zero point minimises an lp loss.

With p < 1 the loss `sum |w - dequantized|**p` cares for the many small residuals and lets a few outliers be. It is
split in two that take turns (half-quadratic splitting): residuals e are shrunk towards zero,
`e = sign(r) * max(|r| - |r|**(p-1) / beta, 0)`, then the zero point is the mean of `code - (w - e) / scale`, while
beta grows by kappa each time. Residuals are counted in steps of the scale, so that the result does not depend on the
unit of the weights; on weights of an ordinary size the published form, in the weights' own unit, shrinks every
residual to zero and so only centres them (it ends with a higher loss).

It needs no calibration and knows no importance.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgeq.checkpoint.tensor import Parameters
from edgeq.quantize import grids
from edgeq.quantize.grids import affine
from edgeq.quantize.grids.groups import Floats, accepted, by_groups, stored_minimum
from edgeq.scheme import Grid

P, BETA, KAPPA, ITERATIONS = 0.7, 10.0, 1.01, 20  # the authors' defaults
TINY = np.float32(1e-12)  # below it a residual's logarithm is of no interest


def search(weight: Floats, importance: Floats | None, grid: Grid) -> Parameters:
    """HQQ's float zero points on min-max scales.

    Every other grid gets its own search, the only one here that uses the importance. Symmetric grids, codebooks and
    super-blocks have no zero point to move. Integer ones can't be moved to any use: another integer leaves the
    fraction of every residual as it was, and on a scale that spans the group it can only clip more, so that HQQ
    would end at min-max.

    Args:
        weight: float32 (rows, columns).
        importance: float32 (columns,) or None.

    Raises:
        EdgeqError: the grid or the shape is refused, or a weight is not finite.
    """
    if grids.kind_of(grid) == "affine":
        return by_groups(accepted(weight, affine.refuses(grid, weight.shape)), None, grid, _affine_groups)
    return grids.find(weight, importance, grid)


def _affine_groups(w: Floats, _: Floats | None, grid: Grid, axis: int) -> tuple[Floats, Floats]:
    scale, minimum = affine.min_max_groups(w, None, grid, axis)
    steps = w * np.reciprocal(scale)

    def held(zero: Floats) -> Floats:
        return -stored_minimum(-zero * scale, grid) / scale

    zero = _half_quadratic(steps, -minimum / scale, grid, axis, held)
    return scale, stored_minimum(-zero * scale, grid)


def _half_quadratic(steps: Floats, zero: Floats, grid: Grid, axis: int, held: Callable[[Floats], Floats]) -> Floats:
    """The zero point, real, with the least loss of all that the iterations visit; stops when no group improves.

    Args:
        steps: the weights in steps of their group's scale.
        zero: where the iterations begin.
        held: what remains of a zero point once it is stored.
    """
    best, least, beta = zero, np.full(zero.shape, np.inf, np.float32), BETA
    for _ in range(ITERATIONS + 1):
        zero = held(zero)
        residual = _residuals(steps, zero, grid)
        size = np.abs(residual)
        powers = _powers(size)
        now = powers.sum(axis, keepdims=True)
        better = now < least
        if not better.any():
            break
        best, least = np.where(better, zero, best), np.where(better, now, least)
        powers /= np.maximum(size, TINY)
        shrunk = np.maximum(size - powers * np.float32(1 / beta), 0)
        zero = zero + (np.copysign(shrunk, residual) - residual).mean(axis, keepdims=True)
        beta *= KAPPA
    return best


def _residuals(steps: Floats, zero: Floats, grid: Grid) -> Floats:
    at = steps + zero
    off: Floats = at - np.clip(np.rint(at), np.float32(0), np.float32(grid.levels - 1))
    return off


def _powers(size: Floats) -> Floats:
    """`size**P`, by way of the logarithm, which numpy computes many at a time."""
    found: Floats = np.exp(np.float32(P) * np.log(np.maximum(size, TINY)))
    return found
