"""Round to nearest: each weight takes the closest value of its group's grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgeq.checkpoint.codebooks import codebook
from edgeq.checkpoint.tensor import Parameters, QuantizedTensor, group_offsets, group_scales
from edgeq.scheme import Grid

if TYPE_CHECKING:
    from edgeq.quantize.methods.composition import Search
    from edgeq.quantize.statistics import InputStatistics

Floats = npt.NDArray[np.float32]
ROW_CHUNK = 1 << 20  # weights rounded at once, to bound memory


def round_to_nearest(weight: Floats, statistics: InputStatistics | None, grid: Grid, search: Search) -> QuantizedTensor:
    """float32 (rows, columns) -> the nearest levels that `search` lays, by the input's statistics where there are."""
    importance = None if statistics is None else statistics.importance.numpy()
    return rounded(weight, search(weight, importance, grid), grid)


def rounded(weight: Floats, parameters: Parameters, grid: Grid) -> QuantizedTensor:
    """The nearest levels under given parameters."""
    rows, columns = weight.shape
    codes = np.empty((rows, columns), np.uint8)
    step = max(1, ROW_CHUNK // max(1, columns))
    for a in range(0, rows, step):
        part = slice(a, a + step)
        codes[part] = _codes(weight[part], parameters.rows(part), grid)
    return QuantizedTensor.of(grid, codes, parameters)


def _codes(weight: Floats, parameters: Parameters, grid: Grid) -> npt.NDArray[np.float32]:
    columns = weight.shape[1]
    size = columns if grid.group_size == -1 else grid.group_size

    def spread(per_group: Floats) -> Floats:
        return np.repeat(per_group, size, 1)[:, :columns]

    scale = group_scales(grid, parameters, columns)
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)
    if grid.codebook is not None:
        table = codebook(grid.codebook)
        return np.searchsorted((table[1:] + table[:-1]) / 2, weight * spread(inverse)).astype(np.float32)
    if grid.zero == "float":
        value = np.rint((weight - spread(group_offsets(grid, parameters, columns))) * spread(inverse))
    else:
        zero = np.full_like(inverse, grid.levels >> 1)
        if parameters.zero_points is not None:
            zero = parameters.zero_points.astype(np.float32)
        # The zero point is an integer, so it may be added before or after rounding; after keeps ties where
        # the grid search saw them.
        value = np.rint(weight * spread(inverse))
        value += spread(zero)
    clipped: npt.NDArray[np.float32] = np.clip(value, 0, grid.levels - 1, out=value)
    return clipped
