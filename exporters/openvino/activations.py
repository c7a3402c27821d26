"""Inputs of linear layers rounded to a checkpoint's activation grids."""

from __future__ import annotations

import numpy as np
from openvino import opset13 as op

from edgeq.checkpoint.activation import ActivationGrid
from edgeq.exporters.openvino.graph import Value, constant, out


def rounded(x: Value, grid: ActivationGrid) -> Value:
    """A static grid as FakeQuantize, which the plugins turn into 8-bit arithmetic where the grid has 8 bits.

    A dynamic grid stays in the plugins' hands: they round each token's input themselves, in groups.
    """
    if grid.scale is None or grid.zero_point is None:
        return x
    low, high = grid.codes
    scale = np.float32(grid.scale)
    ends = [constant(np.float32(code - grid.zero_point) * scale) for code in (low, high)]
    return out(op.fake_quantize(x, *ends, *ends, high - low + 1))
