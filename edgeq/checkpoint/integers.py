"""Grids whose values are integers times a scale, whatever they are called, written as plain integer grids.

A three-bit integer is a four-bit one that uses half of its range, ternary is two-bit, the values of fp4 doubled are
integers from -12 to 12, those of iq4_nl are integers already, and a super-block's scale is one number a group once it
is multiplied out. So kernels for 2, 4 and 8 bits run them all, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.checkpoint.integer_grids import integer_bits, integer_grid, integers_of
from edgeq.checkpoint.tensor import QuantizedTensor, group_offsets, group_scales
from edgeq.errors import EdgeqError
from edgeq.scheme import Grid


@dataclass(frozen=True, slots=True)
class Shifted:
    """A grid with minima as integers, and offsets float32 (rows, groups) that are added to their groups."""

    integers: QuantizedTensor
    offsets: npt.NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, int]:
        return self.integers.shape


def held_by(weight: QuantizedTensor, bits: int) -> QuantizedTensor | Shifted:
    """The same numbers, bit for bit, on integers of `bits` bits, with offsets where the grid has minima.

    Raises:
        EdgeqError: the grid has other values, or needs more bits.
    """
    return as_integers_and_offsets(weight, bits) if weight.grid.zero == "float" else as_integers(weight, bits)


def as_integers(weight: QuantizedTensor, bits: int) -> QuantizedTensor:
    """The same numbers, bit for bit, as integers of `bits` bits with one scale a group.

    Raises:
        EdgeqError: the grid has other values, needs more bits, or has minima.
    """
    grid = weight.grid
    needed = None if grid.zero == "float" else integer_bits(grid)
    if needed is None or needed > bits:
        raise EdgeqError(f"this weight's values are no integers of {bits} bits")
    made = integer_grid(grid, bits)
    scales = group_scales(grid, weight.parameters, weight.shape[1])
    middle = 1 << (bits - 1)
    if grid.codebook is not None:
        values, factor = integers_of(grid.codebook)
        codes = (np.array(values) + middle).astype(np.uint8)[weight.codes]
        return QuantizedTensor(made, codes, _typed(scales / np.float32(factor), made))
    shift = middle - (grid.levels >> 1) if grid.symmetric else 0  # a symmetric grid stays so: zero is in the middle
    codes = weight.codes + np.uint8(shift) if shift else weight.codes
    return QuantizedTensor(made, codes, _typed(scales, made), weight.zero_points)


def as_integers_and_offsets(weight: QuantizedTensor, bits: int) -> Shifted:
    """A grid with minima as integers and what is added to each group.

    The sum of the two is the weight, bit for bit. Integers around zero lose less where activations are rounded, so a
    group's zero point is in the middle of the codes where the minimum moved there is an exact float32 number, and 0
    elsewhere.

    Raises:
        EdgeqError: the codes have more bits.
    """
    grid, columns = weight.grid, weight.shape[1]
    if grid.bits > bits:
        raise EdgeqError(f"this weight's values are no integers of {bits} bits")
    made = integer_grid(grid, bits)
    scales = group_scales(grid, weight.parameters, columns)
    minima = group_offsets(grid, weight.parameters, columns)
    middle = grid.levels >> 1
    wide = scales.astype(np.float64)
    moved = minima.astype(np.float64) + middle * wide
    exact = (moved == moved.astype(np.float32)) & (wide * (grid.levels - 1) == scales * np.float32(grid.levels - 1))
    zeros = np.where(exact, middle, 0).astype(np.uint8)
    offsets = np.where(exact, moved, minima).astype(np.float32)
    return Shifted(QuantizedTensor(made, weight.codes, _typed(scales, made), zeros), offsets)


def without_zero_points(shifted: Shifted) -> Shifted:
    """What `as_integers_and_offsets` gave on a symmetric grid, where every zero point is in the middle of the codes;
    else as it is. Matrices of real models are so: the sum of a minimum and a few scales has few binary digits."""
    weight = shifted.integers
    if weight.zero_points is None or not weight.zero_points.all():  # each is 0 or the middle
        return shifted
    grid = replace(weight.grid, zero="none")
    shift = (grid.levels >> 1) - int(weight.zero_points[0, 0])  # three bits have their middle at 4, four bits at 8
    codes = weight.codes + np.uint8(shift) if shift else weight.codes
    return Shifted(QuantizedTensor(grid, codes, weight.scales), shifted.offsets)


def _typed(scales: npt.NDArray[np.float32], grid: Grid) -> npt.NDArray[Any]:
    """In the dtype of the grid's scales, which they had before."""
    return scales.astype(np.float16 if grid.scale_dtype == "f16" else np.float32, copy=False)
