"""QuantizedTensor: one type for every quantized weight, with the project's one `dequantize`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.checkpoint.codebooks import codebook
from edgeq.errors import EdgeqError
from edgeq.scheme import Grid

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]


def groups_of(columns: int, size: int) -> int:
    """Groups of `size` columns in a row, the last of which may be ragged; -1: one."""
    return 1 if size == -1 else -(-columns // size)


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a grid stores beside the codes of a (rows, columns) weight.

    Attributes:
        scales: (rows, groups) in the grid's scale dtype. With super-blocks: codes of scales, int8 on a symmetric
            grid, uint8 on one with minima.
        zero_points: None on a symmetric grid; uint8 (rows, groups) for integer zero points; the minima in the scale
            dtype for float ones, uint8 codes of minima with super-blocks.
        super_scales: (rows, supers) in the scale dtype, with super-blocks only.
        super_zeros: likewise, for minima: a group's minimum is `-super_zero * code`.
    """

    scales: Array
    zero_points: Array | None = None
    super_scales: Array | None = None
    super_zeros: Array | None = None

    def rows(self, part: slice | Array) -> Parameters:
        """The parameters of some rows: a part of them, or integers that say which, in which order."""
        return Parameters(*(None if a is None else a[part] for a in self.arrays()))  # type: ignore[arg-type]

    def arrays(self) -> tuple[Array, Array | None, Array | None, Array | None]:
        return self.scales, self.zero_points, self.super_scales, self.super_zeros


@dataclass(frozen=True, slots=True)
class QuantizedTensor:
    """A (rows, columns) weight on a grid, grouped along its columns (input channels).

    Attributes:
        codes: uint8 (rows, columns), unpacked, each below `2**grid.bits`.
        scales, zero_points, super_scales, super_zeros: see `Parameters`; groups = ceil(columns / group_size), the
            last may be ragged.
    """

    grid: Grid
    codes: Array
    scales: Array
    zero_points: Array | None = None
    super_scales: Array | None = None
    super_zeros: Array | None = None

    @classmethod
    def of(cls, grid: Grid, codes: Array, parameters: Parameters) -> QuantizedTensor:
        return cls(grid, codes, *parameters.arrays())

    def __post_init__(self) -> None:
        rows, columns = self.codes.shape
        groups = (rows, groups_of(columns, self.grid.group_size))
        supers = None if self.grid.super_size is None else (rows, groups_of(columns, self.grid.super_size))
        minima = supers if self.grid.zero == "float" else None
        expected = {
            "scales": groups,
            "zero points": None if self.grid.symmetric else groups,
            "super-scales": supers,
            "super-zeros": minima,
        }
        for (what, shape), array in zip(expected.items(), self.parameters.arrays(), strict=True):
            if (array is None) != (shape is None):
                raise EdgeqError(f"{what} and grid disagree", hint="A grid stores what it has, no more and no less")
            if array is not None and array.shape != shape:
                raise EdgeqError(f"{what} have shape {array.shape}, the grid needs {shape}")

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.codes.shape
        return int(rows), int(columns)

    @property
    def parameters(self) -> Parameters:
        return Parameters(self.scales, self.zero_points, self.super_scales, self.super_zeros)

    @property
    def group_size(self) -> int:
        return self.shape[1] if self.grid.group_size == -1 else self.grid.group_size

    def dequantize(self) -> Floats:
        """float32 (rows, columns), in the order of operations of the formats' own kernels:

        - integer zero point: `(code - zero_point) * scale`, symmetric: the zero point is `2**(bits-1)`;
        - codebook: `table[code] * scale`;
        - minimum: `code * scale + minimum`;
        - super-blocks: scale = `super_scale * scale_code`, minimum = `-(super_zero * minimum_code)`.
        """
        columns = self.shape[1]
        scale = self._spread(group_scales(self.grid, self.parameters, columns))
        if self.grid.codebook is not None:
            out: Floats = codebook(self.grid.codebook)[self.codes] * scale
        elif self.grid.zero == "float":
            out = self.codes.astype(np.float32) * scale + self._spread(self._minima())
        else:
            zero: Any = np.float32(self.grid.levels >> 1)
            if self.zero_points is not None:
                zero = self._spread(self.zero_points.astype(np.float32))
            out = (self.codes.astype(np.float32) - zero) * scale
        return out

    def _minima(self) -> Floats:
        return group_offsets(self.grid, self.parameters, self.shape[1])

    def _spread(self, per_group: Floats) -> Floats:
        return np.repeat(per_group, self.group_size, axis=1)[:, : self.shape[1]]


def group_scales(grid: Grid, parameters: Parameters, columns: int) -> Floats:
    """float32 (rows, groups): the scale each group's codes are multiplied with."""
    scales: Floats = parameters.scales.astype(np.float32)
    if parameters.super_scales is None:
        return scales
    return _per_group(grid, parameters.super_scales, columns) * scales


def group_offsets(grid: Grid, parameters: Parameters, columns: int) -> Floats:
    """float32 (rows, groups): what is added after scaling. For solvers, on any grid: an integer zero point gives
    `-zero_point * scale`, a symmetric grid `-2**(bits-1) * scale`, a codebook 0."""
    if grid.zero == "float":
        assert parameters.zero_points is not None
        minima: Floats = parameters.zero_points.astype(np.float32)
        if parameters.super_zeros is None:
            return minima
        return -(_per_group(grid, parameters.super_zeros, columns) * minima)
    scales = group_scales(grid, parameters, columns)
    if grid.codebook is not None:
        return np.zeros(scales.shape, np.float32)
    zero: Any = np.float32(grid.levels >> 1)
    if parameters.zero_points is not None:
        zero = parameters.zero_points.astype(np.float32)
    offsets: Floats = -zero * scales
    return offsets


def _per_group(grid: Grid, supers: Array, columns: int) -> Floats:
    groups = groups_of(columns, grid.group_size)
    if grid.super_size in (None, -1):
        return np.repeat(supers.astype(np.float32), groups, axis=1)
    assert grid.super_size is not None
    return np.repeat(supers.astype(np.float32), grid.super_size // grid.group_size, axis=1)[:, :groups]
