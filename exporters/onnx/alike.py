"""Whether the numbers of a written file are the checkpoint's: bit for bit, or as near as float16 has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.checkpoint.weights import Weight, dense
from edgeq.scheme import Grid

F32 = npt.NDArray[np.float32]
_STEP = np.float32(2.0**-10)  # a product of a code and a scale is rounded twice, each time by half a unit of 11 bits
_SMALLEST = 2.0**-25  # half of the smallest number that float16 has


@dataclass(frozen=True, slots=True)
class Alike:
    """Compares what a file holds with what it should.

    A float32 file has the same bits. One in float16 has the nearest of its numbers where the checkpoint has floats; on
    a grid, scales and minima are rounded so, which changes a weight by less than a step of its code.
    """

    half: bool

    def __call__(self, weight: Weight, found: Any) -> bool:
        return self.values(dense(weight), found, weight.grid if isinstance(weight, QuantizedTensor) else None)

    def values(self, meant: F32, found: Any, grid: Grid | None = None) -> bool:
        """`found` is None where the file has nothing in place of `meant`; `grid` is the checkpoint's, None: floats."""
        if not isinstance(found, np.ndarray) or meant.shape != found.shape:
            return False
        if not self.half:
            return meant.dtype == found.dtype == np.float32 and _same_bits(meant, found, np.uint32)
        if grid is None:
            return _same_bits(meant.astype(np.float16), found.astype(np.float16), np.uint16)
        size = np.abs(meant)
        if grid.zero == "float":  # a small number may be the sum of a large product and a large minimum
            size = np.maximum(size, size.max(axis=-1, keepdims=True))
        return bool((np.abs(found.astype(np.float32) - meant) <= _STEP * size + _SMALLEST * grid.levels).all())


def _same_bits(a: npt.NDArray[Any], b: npt.NDArray[Any], bits: npt.DTypeLike) -> bool:
    return bool(np.array_equal(np.ascontiguousarray(a).view(bits), np.ascontiguousarray(b).view(bits)))
