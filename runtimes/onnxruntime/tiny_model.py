"""Just enough of ONNX's protobuf encoding to write a model of a few nodes: the runtime extra has no `onnx` package.

Field numbers are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto, the wire format that of
https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

MICROSOFT = "com.microsoft"
IR_VERSION, OPSET = 10, 21
FLOAT, INT32 = 1, 6
_DTYPES = {np.dtype(np.float32): FLOAT, np.dtype(np.uint8): 2, np.dtype(np.int32): INT32, np.dtype(np.int64): 7}
_VARINT, _BYTES, _FIXED32 = 0, 2, 5


@dataclass(slots=True)
class TinyModel:
    """A graph under construction; `encode()` gives the bytes that `onnxruntime.InferenceSession` takes."""

    nodes: list[bytes] = field(default_factory=list)
    inputs: list[bytes] = field(default_factory=list)
    outputs: list[bytes] = field(default_factory=list)
    initializers: list[bytes] = field(default_factory=list)
    external: dict[str, npt.NDArray[Any]] = field(default_factory=dict)

    def input(self, name: str, shape: Sequence[int | str], dtype: int = FLOAT) -> str:
        self.inputs.append(_value_info(name, shape, dtype))
        return name

    def output(self, name: str, shape: Sequence[int | str], dtype: int = FLOAT) -> str:
        self.outputs.append(_value_info(name, shape, dtype))
        return name

    def constant(self, name: str, array: npt.NDArray[Any]) -> str:
        self.initializers.append(_tensor(name, array) + _bytes(9, array.tobytes()))
        return name

    def supplied(self, name: str, array: npt.NDArray[Any]) -> str:
        """A constant that stays outside the bytes: give `external` to `SessionOptions.add_external_initializers`.
        Several may name the same array; each counts as a weight of its own."""
        place = _bytes(13, _text(1, "location") + _text(2, "supplied"))
        self.initializers.append(_tensor(name, array) + place + _varint(14, 1))
        self.external[name] = array
        return name

    def node(
        self, op: str, inputs: Sequence[str], outputs: Sequence[str], domain: str = "", **attributes: float
    ) -> str:
        """Append a node, ints and floats being its attributes; the name of its first output."""
        ends = b"".join(_text(1, i) for i in inputs) + b"".join(_text(2, o) for o in outputs)
        settings = b"".join(_bytes(5, _attribute(k, v)) for k, v in attributes.items())
        self.nodes.append(ends + _text(4, op) + settings + _text(7, domain))
        return outputs[0]

    def encode(self) -> bytes:
        parts = [(1, self.nodes), (5, self.initializers), (11, self.inputs), (12, self.outputs)]
        graph = b"".join(_bytes(number, p) for number, group in parts for p in group) + _text(2, "probe")
        opsets = b"".join(_bytes(8, _text(1, d) + _varint(2, v)) for d, v in (("", OPSET), (MICROSOFT, 1)))
        return _varint(1, IR_VERSION) + _bytes(7, graph) + opsets


def _tensor(name: str, array: npt.NDArray[Any]) -> bytes:
    dims = b"".join(_varint(1, d) for d in array.shape)
    return dims + _varint(2, _DTYPES[array.dtype]) + _text(8, name)


def _attribute(name: str, value: float) -> bytes:
    if isinstance(value, int):
        return _text(1, name) + _varint(3, value) + _varint(20, 2)
    return _text(1, name) + _key(2, _FIXED32) + struct.pack("<f", value) + _varint(20, 1)


def _value_info(name: str, shape: Sequence[int | str], dtype: int) -> bytes:
    dims = b"".join(_bytes(1, _text(2, d) if isinstance(d, str) else _varint(1, d)) for d in shape)
    tensor = _varint(1, dtype) + _bytes(2, dims)
    return _text(1, name) + _bytes(2, _bytes(1, tensor))


def _key(number: int, kind: int) -> bytes:
    return _base128(number << 3 | kind)


def _varint(number: int, value: int) -> bytes:
    return _key(number, _VARINT) + _base128(value)


def _bytes(number: int, data: bytes) -> bytes:
    return _key(number, _BYTES) + _base128(len(data)) + data


def _text(number: int, value: str) -> bytes:
    return _bytes(number, value.encode())


def _base128(value: int) -> bytes:
    out = bytearray()
    value &= (1 << 64) - 1  # negative numbers are written in two's complement
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
