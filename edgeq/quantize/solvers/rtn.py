"""Round to nearest: each weight takes the closest value of its group's grid."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.quantize.grids.uniform import Parameters
from edgeq.scheme import Grid

ROW_CHUNK = 1 << 20  # weights rounded at once, to bound memory


def round_to_nearest(weight: npt.NDArray[np.float32], parameters: Parameters, grid: Grid) -> QuantizedTensor:
    """float32 (rows, columns) -> codes on the grid that `parameters` lay."""
    rows, columns = weight.shape
    size = columns if grid.group_size == -1 else grid.group_size
    codes = np.empty((rows, columns), np.uint8)
    step = max(1, ROW_CHUNK // max(1, columns))
    for a in range(0, rows, step):
        part = slice(a, a + step)
        inverse = 1 / parameters.scales[part].astype(np.float32)
        zero = np.full_like(inverse, grid.levels >> 1)
        if parameters.zero_points is not None:
            zero = parameters.zero_points[part].astype(np.float32)
        # The zero point is an integer, so it may be added before or after rounding; after keeps ties where
        # the grid search saw them.
        value = np.rint(weight[part] * np.repeat(inverse, size, 1)[:, :columns])
        value += np.repeat(zero, size, 1)[:, :columns]
        codes[part] = np.clip(value, 0, grid.levels - 1, out=value)
    return QuantizedTensor(grid, codes, parameters.scales, parameters.zero_points)
