"""Dequantization as ONNX functions of the domain `edgeq`: their bodies are standard operators, for any runtime.

One function a form of grid and width of code, e.g. `edgeq.DequantizeCodebook4(codes, scales, table)` or
`edgeq.DequantizeSuperAffine4(codes, scales, minima, super_scales, super_minima)`; it gives float32 (channels, rows).
The layout of the inputs is told in docs/onnx.md and made by `edgeq.exporters.onnx.planes`. The float32 operations are
those of `QuantizedTensor.dequantize`, in its order, so that the numbers are the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeq.exporters.onnx.graph import EDGEQ
from edgeq.scheme import Grid

# A code of so many bits as pieces whose widths divide a byte, the lowest bits first.
PIECES = {1: (1,), 2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2), 7: (4, 2, 1), 8: (8,)}


def function_name(grid: Grid) -> str:
    """Of the function that dequantizes a grid; grids of one name differ in group size or table only."""
    form = {"none": "Symmetric", "int": "Integer", "float": "Affine"}[grid.zero]
    form = form if grid.codebook is None else "Codebook"
    return f"Dequantize{'' if grid.super_size is None else 'Super'}{form}{grid.bits}"


def plane_names(grid: Grid) -> list[str]:
    pieces = PIECES[grid.bits]
    return ["codes"] if len(pieces) == 1 else [f"codes_{i}" for i in range(len(pieces))]


def input_names(grid: Grid) -> list[str]:
    """Inputs of the grid's function, in order."""
    names = [*plane_names(grid), "scales"]
    if grid.zero == "int":
        names.append("zero_points")
    if grid.zero == "float":
        names.append("minima")
    if grid.super_size is not None:
        names.append("super_scales")
        if grid.zero == "float":
            names.append("super_minima")
    return [*names, "table"] if grid.codebook is not None else names


def function(grid: Grid, opset: int) -> onnx.FunctionProto:
    body = _Body()
    codes = _codes(body, grid)
    scale = _grouped(body, "scales", "super_scales" if grid.super_size is not None else None)
    if grid.codebook is not None:
        indices = body.add("Cast", [codes], "indices", to=TensorProto.INT32)
        value = body.add("Mul", [body.add("Gather", ["table", indices], "value"), scale], "scaled")
    elif grid.zero == "float":
        minimum = _grouped(body, "minima", "super_minima" if grid.super_size is not None else None)
        if grid.super_size is not None:
            minimum = body.add("Neg", [minimum], "offset")
        value = body.add("Mul", [_float(body, codes), scale], "scaled")
        value = body.add("Add", [value, minimum], "shifted")
    else:
        zero = body.constant("middle", np.array(grid.levels >> 1, np.float32))
        if grid.zero == "int":
            zero = _float(body, "zero_points")
        value = body.add("Mul", [body.add("Sub", [_float(body, codes), zero], "centered"), scale], "scaled")
    body.add("Flatten", [value], "weight", axis=2)  # (groups, channels of a group, rows) -> (channels, rows)
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_function(EDGEQ, function_name(grid), input_names(grid), ["weight"], body.nodes, opsets)


class _Body:
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []

    def add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def constant(self, name: str, value: np.ndarray[Any, Any]) -> str:
        self.nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value, name)))
        return name


def _float(body: _Body, name: str) -> str:
    return body.add("Cast", [name], f"{name}_f32", to=TensorProto.FLOAT)


def _split(body: _Body, of: str) -> str:
    """The shape (groups, -1, rows) of something that is grouped as `of` (groups, 1, rows) is."""
    if not any(n.output[0] == "split" for n in body.nodes):
        body.constant("split", np.array([1, -1, 1], np.int64))
    return body.add("Mul", [body.add("Shape", [of], f"{of}_shape"), "split"], f"{of}_split")


def _codes(body: _Body, grid: Grid) -> str:
    """uint8 (groups, channels of a group, rows)."""
    shape, whole, low = _split(body, "scales"), "", 0
    for name, width in zip(plane_names(grid), PIECES[grid.bits], strict=True):
        piece = name if width == 8 else _unpacked(body, name, width)
        piece = body.add("Reshape", [piece, shape], f"{name}_grouped")
        if low:
            place = body.constant(f"{name}_place", np.array(1 << low, np.uint8))
            piece = body.add("Mul", [piece, place], f"{name}_raised")  # onnxruntime vectorizes these, not bit operators
            piece = body.add("Add", [whole, piece], f"{name}_joined")
        whole, low = piece, low + width
    return whole


def _unpacked(body: _Body, name: str, width: int) -> str:
    """Bytes (n, rows) -> pieces (8 / width, n, rows): a byte's lowest piece belongs to the first n channels."""
    shifts = np.arange(0, 8, width, dtype=np.uint8).reshape(-1, 1, 1)
    wide = body.add("Unsqueeze", [name, body.constant(f"{name}_axis", np.array([0], np.int64))], f"{name}_wide")
    moved = body.add("BitShift", [wide, body.constant(f"{name}_shifts", shifts)], f"{name}_moved", direction="RIGHT")
    mask = body.constant(f"{name}_mask", np.array((1 << width) - 1, np.uint8))
    return body.add("BitwiseAnd", [moved, mask], f"{name}_pieces")


def _grouped(body: _Body, name: str, supers: str | None) -> str:
    """float32 (groups, 1, rows): scales or minima, multiplied with their super-scales where they are codes."""
    value = _float(body, name)
    if supers is None:
        return value
    split = body.add("Reshape", [value, _split(body, supers)], f"{name}_of_supers")
    product = body.add("Mul", [_float(body, supers), split], f"{name}_product")
    shape = body.add("Shape", [name], f"{name}_own_shape")
    return body.add("Reshape", [product, shape], f"{name}_whole")
