"""Grids whose values are integers times a scale, whatever they are called, written as plain integer grids.

A three-bit integer is a four-bit one that uses half of its range, ternary is two-bit, the values of fp4 doubled are
integers from -12 to 12, those of iq4_nl are integers already, and a super-block's scale is one number a group once it
is multiplied out. So kernels for 2, 4 and 8 bits run them all, bit for bit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgeq.checkpoint.integer_grids import integer_bits, integer_grid, integers_of
from edgeq.checkpoint.tensor import QuantizedTensor, group_offsets, group_scales
from edgeq.errors import EdgeqError


def as_integers(weight: QuantizedTensor, bits: int) -> QuantizedTensor:
    """The same numbers, bit for bit, as integers of `bits` bits with one float32 scale a group.

    Raises:
        EdgeqError: the grid has other values, needs more bits, or has minima.
    """
    grid = weight.grid
    needed = None if grid.zero == "float" else integer_bits(grid)
    if needed is None or needed > bits:
        raise EdgeqError(f"this weight's values are no integers of {bits} bits")
    scales = group_scales(grid, weight.parameters, weight.shape[1])
    middle = 1 << (bits - 1)
    if grid.codebook is not None:
        values, factor = integers_of(grid.codebook)
        codes = (np.array(values) + middle).astype(np.uint8)[weight.codes]
        return QuantizedTensor(integer_grid(grid, bits), codes, scales / np.float32(factor))
    shift = middle - (grid.levels >> 1) if grid.symmetric else 0  # a symmetric grid stays so: zero is in the middle
    codes = weight.codes + np.uint8(shift)
    return QuantizedTensor(integer_grid(grid, bits), codes, scales, weight.zero_points)


def as_integers_and_offsets(weight: QuantizedTensor, bits: int) -> tuple[QuantizedTensor, npt.NDArray[np.float32]]:
    """A grid with minima as integers and what is added to each group, float32 (rows, groups).

    The sum of the two is the weight, bit for bit. Integers around zero lose less where activations are rounded, so a
    group's zero point is in the middle of the codes where the minimum moved there is an exact float32 number, and 0
    elsewhere.
    """
    grid, columns = weight.grid, weight.shape[1]
    scales = group_scales(grid, weight.parameters, columns)
    minima = group_offsets(grid, weight.parameters, columns)
    middle = grid.levels >> 1
    wide = scales.astype(np.float64)
    moved = minima.astype(np.float64) + middle * wide
    exact = (moved == moved.astype(np.float32)) & (wide * (grid.levels - 1) == scales * np.float32(grid.levels - 1))
    zeros = np.where(exact, middle, 0).astype(np.uint8)
    offsets = np.where(exact, moved, minima).astype(np.float32)
    return QuantizedTensor(integer_grid(grid, bits), weight.codes, scales, zeros), offsets
