"""An ONNX graph in the making: nodes and constants go in memory, large weights straight to the external data file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeq.errors import EdgeqError

Array = npt.NDArray[Any]

MICROSOFT = "com.microsoft"
EDGEQ = "edgeq"  # of the functions that a model brings along: see `edgeq.exporters.onnx.functions`
# onnxruntime refuses IR and opset versions newer than itself, and onnx writes its newest unless told. Opset 21 has
# every standard operator used here and runs on onnxruntime 1.20 and later.
IR_VERSION, OPSET = 10, 21
_INLINE = 1024  # bytes; smaller constants live in model.onnx, where shape inference can see them
_PAGE, _LINE = 4096, 64  # large tensors start on a page, so that a runtime can map them


class Graph:
    """Use as a context manager; `save` writes model.onnx beside the data that has been streamed out by then.

    Args:
        floats: dtype of activations, and of the numbers that meet them: float32 or float16.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        ir: int = IR_VERSION,
        opset: int = OPSET,
        domains: Sequence[str] = (MICROSOFT,),
        floats: npt.DTypeLike = np.float32,
    ) -> None:
        self.floats = np.dtype(floats)
        self.metadata: dict[str, str] = {}
        self._ir, self._opset = ir, opset
        self._domains = list(domains)
        self._functions: dict[str, Callable[[int], onnx.FunctionProto]] = {}
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self._nodes: list[onnx.NodeProto] = []
        self._tensors: dict[str, TensorProto] = {}
        self._path = folder / "model.onnx"
        self._name = name
        self._data = (folder / "model.onnx.data").open("wb")

    def __enter__(self) -> Graph:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._data.close()

    def add(
        self, op: str, inputs: Sequence[str], outputs: str | Sequence[str], *, domain: str = "", **attributes: Any
    ) -> str:
        """Append a node named after its first output, which is returned."""
        names = [outputs] if isinstance(outputs, str) else list(outputs)
        trimmed = list(inputs)
        while trimmed and not trimmed[-1]:
            trimmed.pop()
        self._nodes.append(helper.make_node(op, trimmed, names, name=names[0], domain=domain, **attributes))
        return names[0]

    def shape(self, constant: str) -> tuple[int, ...]:
        return tuple(self._tensors[constant].dims)

    @property
    def float_type(self) -> int:
        """`floats` as ONNX names it."""
        return int(helper.np_dtype_to_tensor_dtype(self.floats))

    def function(self, name: str, make: Callable[[int], onnx.FunctionProto]) -> str:
        """The function of that name comes along with the model, made for its opset. Returns the name."""
        self._functions.setdefault(name, make)
        return name

    def require(self, ir: int, opset: int) -> None:
        """Something in the graph is not older than these versions."""
        self._ir, self._opset = max(self._ir, ir), max(self._opset, opset)

    def rename_result(self, name: str) -> str:
        """Rename the first output of the newest node, which nothing reads yet."""
        self._nodes[-1].output[0] = name
        return name

    def constant(self, name: str, value: Array) -> str:
        """An initializer; asking again for a name that exists gives the first."""
        if name not in self._tensors:
            if value.nbytes < _INLINE:
                self._tensors[name] = numpy_helper.from_array(np.asarray(value), name)
            else:
                self.stream(name, value.dtype, value.shape, [value])
        return name

    def numbers(self, name: str, value: Array) -> str:
        """A constant that activations meet, in their dtype.

        Raises:
            EdgeqError: it is out of that dtype's range.
        """
        return self.constant(name, _cast(name, value, self.floats))

    def stream(self, name: str, dtype: npt.DTypeLike, shape: Sequence[int], parts: Iterable[Array]) -> str:
        """An initializer in the data file, written part after part; the parts together fill `shape`."""
        kind = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        same = (_cast(name, part, kind) for part in parts)
        return self._external(name, helper.np_dtype_to_tensor_dtype(kind), shape, size, same)

    def packed(self, name: str, kind: int, shape: Sequence[int], bits: int, parts: Iterable[Array]) -> str:
        """An initializer of a type of so many bits, its parts uint8, packed over the whole tensor."""
        size = -(-int(np.prod(shape, dtype=np.int64)) * bits // 8)
        return self._external(name, kind, shape, size, parts)

    def _external(self, name: str, kind: int, shape: Sequence[int], size: int, parts: Iterable[Array]) -> str:
        align = _PAGE if size >= _PAGE else _LINE
        self._data.write(b"\0" * (-self._data.tell() % align))
        offset = self._data.tell()
        for part in parts:
            self._data.write(np.ascontiguousarray(part).data)
        if self._data.tell() - offset != size:
            raise ValueError(f"{name}: wrote {self._data.tell() - offset} bytes of {size}")
        tensor = TensorProto(name=name, data_type=kind, dims=list(shape))
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "model.onnx.data"), ("offset", offset), ("length", size)):
            tensor.external_data.add(key=key, value=str(value))
        self._tensors[name] = tensor
        return name

    def alias(self, name: str, of: str) -> str:
        """Another initializer of the same bytes in the data file, for runtimes that rewrite one for each reader."""
        tensor = TensorProto()
        tensor.CopyFrom(self._tensors[of])
        tensor.name = name
        self._tensors[name] = tensor
        return name

    def input(self, name: str, kind: int, shape: Sequence[int | str]) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def default_input(self, name: str, value: Array) -> str:
        """An input that takes `value` when the caller does not feed it: an initializer listed among the inputs."""
        self.input(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        return self.constant(name, value)

    def output(self, name: str, kind: int, shape: Sequence[int | str]) -> str:
        self.outputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def save(self) -> None:
        graph = helper.make_graph(self._nodes, self._name, self.inputs, self.outputs, list(self._tensors.values()))
        domains = [*self._domains, *([EDGEQ] if self._functions else [])]
        opsets = [helper.make_opsetid("", self._opset), *(helper.make_opsetid(d, 1) for d in domains)]
        bodies = [make(self._opset) for make in self._functions.values()]
        model = helper.make_model(
            graph, ir_version=self._ir, opset_imports=opsets, functions=bodies, producer_name="edgeq"
        )
        helper.set_model_props(model, self.metadata)
        self._data.flush()
        os.fsync(self._data.fileno())
        self._path.write_bytes(model.SerializeToString())


def _cast(name: str, value: Array, kind: np.dtype[Any]) -> Array:
    with np.errstate(over="ignore"):
        cast = np.asarray(value, kind)
    if kind == np.float16 and not np.isfinite(cast).all():
        raise EdgeqError(f"{name} has numbers beyond 65,504, float16's largest", hint="Leave --dtype out")
    return cast
