"""QuantizedTensor: one type for every quantized weight, with the project's one `dequantize`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.errors import EdgeqError
from edgeq.scheme import Grid

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class QuantizedTensor:
    """A (rows, columns) weight on a grid, grouped along its columns (input channels).

    Attributes:
        codes: uint8 (rows, columns), unpacked, each below `2**grid.bits`.
        scales: (rows, groups) in `grid.scale_dtype`; groups = ceil(columns / group_size), the last may be ragged.
        zero_points: uint8 (rows, groups) for an integer zero, float32 for a float one, None for a symmetric grid
            (then the zero point is `2**(bits-1)`).
    """

    grid: Grid
    codes: Array
    scales: Array
    zero_points: Array | None = None

    def __post_init__(self) -> None:
        rows, columns = self.codes.shape
        size = columns if self.grid.group_size == -1 else self.grid.group_size
        expected = (rows, -(-columns // size))
        if self.scales.shape != expected:
            raise EdgeqError(f"scales have shape {self.scales.shape}, the grid needs {expected}")
        if (self.zero_points is None) != self.grid.symmetric:
            raise EdgeqError("zero points and grid disagree", hint="a symmetric grid stores none, any other does")
        if self.zero_points is not None and self.zero_points.shape != expected:
            raise EdgeqError(f"zero points have shape {self.zero_points.shape}, the grid needs {expected}")

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.codes.shape
        return int(rows), int(columns)

    @property
    def group_size(self) -> int:
        return self.shape[1] if self.grid.group_size == -1 else self.grid.group_size

    def dequantize(self) -> npt.NDArray[np.float32]:
        """float32 (rows, columns): `(code - zero_point) * scale`, group by group."""
        rows, columns = self.shape
        middle = np.float32(1 << (self.grid.bits - 1))
        zero: Any = middle if self.zero_points is None else self._spread(self.zero_points)
        out: npt.NDArray[np.float32] = (self.codes.astype(np.float32) - zero) * self._spread(self.scales)
        return out.reshape(rows, columns)

    def _spread(self, per_group: Array) -> npt.NDArray[np.float32]:
        columns = self.shape[1]
        return np.repeat(per_group.astype(np.float32), self.group_size, axis=1)[:, :columns]
