"""Small helpers over OpenVINO's opset: a value of the graph is an `ov.Output`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as op
from openvino.utils.node_factory import NodeFactory

OPSET = NodeFactory("opset13")  # makes an operation with the inputs it is given, no more and no fewer
Value: TypeAlias = Any  # an `ov.Output`, whose class mypy does not see


def constant(value: npt.ArrayLike, dtype: npt.DTypeLike | None = None) -> Value:
    return op.constant(np.asarray(value, dtype)).output(0)


def integers(*values: int) -> Value:
    return constant(list(values), np.int64)


def number(value: float) -> Value:
    return constant(value, np.float32)


def named(value: Value, name: str) -> Value:
    """Give the value's node a name, by which it is found in the written file."""
    value.get_node().set_friendly_name(name)
    return value


def out(node: ov.Node) -> Value:
    return node.output(0)


def reshape(x: Value, *shape: int) -> Value:
    """0 keeps an axis, -1 takes what is left."""
    return out(op.reshape(x, integers(*shape), True))


def swapped(x: Value, *order: int) -> Value:
    return out(op.transpose(x, integers(*order)))


def joined(parts: Sequence[Value], axis: int) -> Value:
    return parts[0] if len(parts) == 1 else out(op.concat(list(parts), axis))


def split(x: Value, axis: int, sizes: Sequence[int]) -> list[Value]:
    node = op.variadic_split(x, constant(axis, np.int64), integers(*sizes))
    return [node.output(i) for i in range(len(sizes))]


def size(x: Value, axis: int) -> Value:
    """int64 [1]: the length of one axis."""
    return out(op.gather(out(op.shape_of(x, "i64")), integers(axis), constant(0, np.int64)))


def scalar(x: Value) -> Value:
    """[1] to no axis at all."""
    return out(op.squeeze(x, constant(0, np.int64)))


def steps(start: Value, stop: Value) -> Value:
    return out(op.range(start, stop, constant(1, np.int64), "i64"))
