"""What the inputs of a written product are rounded to, beside what the checkpoint says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from edgeq.checkpoint.activation import ActivationGrid
from edgeq.exporters.onnx.written import Written

_COARSE = 257  # fine codes in a coarse one, where 16 bits are two products of 8
_MIDDLE = 128


@dataclass(frozen=True, slots=True)
class Rounding:
    """Attributes:
    kind: `static`, or `dynamic`: the step is that of what comes.
    steps: of every rounding, its step, the code of zero and its bits; none where the operator finds them itself.
    ends: what values are clipped to before, where they are.
    """

    kind: str
    steps: frozenset[tuple[float, int, int]] = frozenset()
    ends: tuple[float, float] | None = None


def rounding_meant(grid: ActivationGrid, *, by_row: bool) -> Rounding:
    """What the graph has to hold for a grid.

    Args:
        by_row: the weights are multiplied as integers, so that 16 bits are two products.
    """
    if grid.kind == "dynamic":
        return Rounding("dynamic", frozenset({(1.0, _MIDDLE, 8)}) if grid.symmetric else frozenset())
    assert grid.scale is not None and grid.zero_point is not None
    if grid.bits == 16 and by_row:
        coarse = _single(_COARSE * grid.scale), round(grid.zero_point / _COARSE), 8
        return Rounding("static", frozenset({coarse, (_single(grid.scale), _MIDDLE, 8)}))
    step = _single(grid.scale), grid.zero_point + (_MIDDLE if grid.symmetric else 0), grid.bits
    ends = (_single(grid.codes[0] * grid.scale), _single(grid.codes[1] * grid.scale)) if grid.symmetric else None
    return Rounding("static", frozenset({step}), ends)


def rounding_found(file: Written, value: str) -> Rounding | None:
    """What the product that `value` is has its inputs rounded to; None: it is not seen to round them."""
    steps: set[tuple[float, int, int]] = set()
    ends, dynamic = None, False
    for product in file.products(value):
        node = _made(file, product.input[0])
        while node is not None and node.op_type in ("Mul", "DequantizeLinear"):
            node = _made(file, node.input[0])
        if node is None:
            return None
        dynamic |= node.op_type == "DynamicQuantizeLinear"
        if node.op_type != "QuantizeLinear":
            continue
        step, zero = file.constant(node.input[1]), file.constant(node.input[2])
        if step is None or zero is None:
            return None
        steps.add((float(step), int(zero), 8 * zero.itemsize))
        before = _made(file, node.input[0])
        if before is not None and before.op_type == "Clip":
            low, high = (file.constant(n) for n in before.input[1:3])
            ends = None if low is None or high is None else (float(low), float(high))
        dynamic |= before is not None and before.op_type == "Div"
    if not steps and not dynamic:
        return None
    return Rounding("dynamic" if dynamic else "static", frozenset(steps), ends)


def _made(file: Written, value: str) -> onnx.NodeProto | None:
    return file.maker(value) if file.makes(value) else None


def _single(value: Any) -> float:
    return float(np.float32(value))
