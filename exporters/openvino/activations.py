"""Inputs of linear layers rounded to a checkpoint's activation grids."""

from __future__ import annotations

import numpy as np
from openvino import opset13 as op

from edgeq.checkpoint.activation import ActivationGrid
from edgeq.exporters.openvino.graph import Value, constant, number, out


def rounded(x: Value, grid: ActivationGrid) -> Value:
    """What the grid makes of an input.

    - Static, 8 bits or less: FakeQuantize, which the plugins turn into 8-bit arithmetic.
    - Static, more bits: the grid's formula in float32. A FakeQuantize of 65,536 levels is left out by OpenVINO 2026.4.
    - Dynamic: nothing. The plugins round each token's input themselves, in groups.
    """
    if grid.scale is None or grid.zero_point is None:
        return x
    low, high = grid.codes
    scale = np.float32(grid.scale)
    if grid.bits <= 8:
        ends = [constant(np.float32(code - grid.zero_point) * scale) for code in (low, high)]
        return out(op.fake_quantize(x, *ends, *ends, high - low + 1))
    steps = out(op.round(out(op.divide(x, number(float(scale)))), "half_to_even"))
    codes = out(op.clamp(steps, float(low - grid.zero_point), float(high - grid.zero_point)))
    return out(op.multiply(codes, number(float(scale))))
