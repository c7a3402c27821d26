"""An ONNX model on disk, asked for the constants that it computes with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import load_external_data_for_tensor
from onnx.reference import ReferenceEvaluator

from edgeq.errors import EdgeqError

Array = npt.NDArray[Any]
_PASSES_ON = {"Mul", "Tanh", "Reshape", "Cast"}  # between a product and the value that is asked for


class Written:
    """Raises EdgeqError where the file can't be read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._model = onnx.load(path, load_external_data=False)
        except Exception as error:  # protobuf's errors share no base
            raise EdgeqError("this is not an ONNX model", where=path, hint="Export it again") from error
        self._makers: dict[str, onnx.NodeProto] = {
            out: node for node in self._model.graph.node for out in node.output if out
        }
        self._constants = {t.name: t for t in self._model.graph.initializer}
        types = {o.name: o.type.tensor_type.elem_type for o in self._model.graph.output}
        self.half = types.get("logits") == TensorProto.FLOAT16

    def constant(self, name: str) -> Array | None:
        """None where there is none of that name."""
        if name not in self._constants:
            return None
        return numpy_helper.to_array(self._loaded(name))

    def product(self, value: str) -> tuple[Array, Array | None]:
        """Weight (outputs, inputs) and bias (outputs,) of the product that `value` is, or that the group of this name
        gives.

        Raises:
            EdgeqError: there is no such product.
        """
        node, scales = self._below(value)
        if node.op_type == "Concat":
            parts = [self.product(name) for name in node.input]
            biases = [b for _, b in parts if b is not None]
            return np.concatenate([w for w, _ in parts]), np.concatenate(biases) if biases else None
        if node.op_type == "Add" and node.input[1] in self._constants:
            return self.product(node.input[0])[0], self.constant(node.input[1])
        if node.op_type == "Add" and self._is_offsets(node.input[1]):
            return self.product(node.input[0])[0] + self._offsets(self.maker(node.input[1])), None
        if node.op_type == "Add":  # of the coarse and the fine parts of inputs
            coarse, fine = (self.product(name)[0] for name in node.input)
            if not np.array_equal(coarse, fine):
                raise EdgeqError(f"{value!r} is the sum of products with two matrices", where=self._path)
            return coarse, None
        if node.op_type == "MatMulInteger":
            return self._integers(node, scales), None
        if node.op_type == "MatMulNBits":
            weight = self.blocks(node.input[1], node.input[2], _input(node, 3), node)[:, : _attribute(node, "K")]
            return weight, self.constant(_input(node, 5))
        if node.op_type not in ("MatMul", "FusedMatMul", "Gemm"):
            raise EdgeqError(f"the graph gives {value!r} by {node.op_type}, not by a product", where=self._path)
        weight = self.evaluator(node.input[1])({})
        return (weight if _attribute(node, "transB") else weight.T), self.constant(_input(node, 2))

    def products(self, value: str) -> list[onnx.NodeProto]:
        """The nodes that multiply, in the product that `value` is: several where it is made of parts.

        Raises:
            EdgeqError: there is no such product.
        """
        node, _ = self._below(value)
        if node.op_type == "Concat":
            return [n for name in node.input for n in self.products(name)]
        if node.op_type == "Add":
            second = node.input[1] in self._constants or self._is_offsets(node.input[1])
            return [n for name in node.input[: 1 if second else 2] for n in self.products(name)]
        return [node]

    def _below(self, value: str) -> tuple[onnx.NodeProto, Array | None]:
        """The node that a product ends in, and the scales (outputs,) that its integers are multiplied with after."""
        named = (n for n in (value, f"{value}.biased", f"{value}.shifted", f"{value}.out") if n in self._makers)
        node, scales = self.maker(next(named, value)), None
        while node.op_type in _PASSES_ON:
            factor = self._makers.get(node.input[1]) if node.op_type == "Mul" else None
            if factor is not None and factor.op_type == "Mul":  # the input's scale and the weight's
                scales = self.constant(factor.input[1])
            node = self.maker(node.input[0])
        return node, scales

    def _is_offsets(self, value: str) -> bool:
        node = self.maker(value)
        return node.op_type == "MatMul" and node.input[1] in self._constants

    def _integers(self, node: onnx.NodeProto, scales: Array | None) -> Array:
        """float32 (outputs, inputs) of int8 codes (inputs, outputs), their zero points and the scales."""
        codes, zeros = self.constant(node.input[1]), self.constant(_input(node, 3))
        if codes is None or scales is None:
            raise EdgeqError(f"{node.name} has no constant codes and scales", where=self._path)
        values = codes.astype(np.float32) - (0 if zeros is None else zeros.astype(np.float32))
        return np.ascontiguousarray((values * scales).T)

    def rows(self, name: str) -> Callable[[npt.NDArray[np.int64]], Array]:
        """What gives rows of the embedding of that name for token ids (n,)."""
        fused = self._makers.get(f"{name}.blocks")
        if fused is not None:
            whole = self.blocks(fused.input[0], f"{name}.scales", _input(fused, 3), fused)
            cut = self.constant(f"{name}.cut1")
            whole = whole[:, : None if cut is None else int(cut[0])]
            if f"{name}.row_offsets" not in self._makers:
                return lambda ids: whole[ids]
            offsets = self.evaluator(f"{name}.row_offsets")
            return lambda ids: whole[ids] + offsets({"input_ids": ids[None]})[0]
        value = f"{name}.rows_shifted"
        evaluate = self.evaluator(value if value in self._makers else f"{name}.rows")
        return lambda ids: evaluate({"input_ids": ids[None]})[0]

    def _offsets(self, product: onnx.NodeProto) -> Array:
        """float32 (outputs, inputs) of a product of sums of groups: what each group's channels have added."""
        offsets = self.constant(product.input[1])
        grouped = self.maker(self.maker(product.input[0]).input[0])
        shape = self.constant(grouped.input[1])
        assert offsets is not None and shape is not None
        spread = np.repeat(offsets.T, shape[3], axis=1)
        source = self._makers.get(grouped.input[0])
        padding = self.constant(source.input[1]) if source is not None and source.op_type == "Pad" else None
        return spread if padding is None else spread[:, : -int(padding[5])]

    def makes(self, value: str) -> bool:
        """`value` is neither an input nor a constant."""
        return value in self._makers

    def maker(self, value: str) -> onnx.NodeProto:
        """The node that gives a value.

        Raises:
            EdgeqError: none does.
        """
        if value not in self._makers:
            raise EdgeqError(f"the graph has no value {value!r}", where=self._path, hint="Export it again")
        return self._makers[value]

    def _loaded(self, name: str) -> TensorProto:
        tensor = TensorProto()
        tensor.CopyFrom(self._constants[name])
        if tensor.data_location == TensorProto.EXTERNAL:
            try:
                load_external_data_for_tensor(tensor, str(self._path.parent))
            except Exception as error:  # of the checker, of the system, of numpy
                raise EdgeqError(f"{name} can't be read: {error}", where=self._path) from error
            del tensor.external_data[:]
            tensor.data_location = TensorProto.DEFAULT
        return tensor

    def evaluator(self, value: str) -> Callable[[dict[str, Array]], Array]:
        """Gives `value` for what the caller feeds: the part of the graph that leads there from constants.

        A size of the activations, on which unpacking waits, is fed as ones.
        """
        if value in self._constants:
            return lambda feeds: numpy_helper.to_array(self._loaded(value))
        names: set[str] = set()
        constants: set[str] = set()
        fed: dict[str, Array] = {}
        todo = [value]
        while todo:
            name = todo.pop()
            if name in self._constants:
                constants.add(name)
            elif name in self._makers and name not in fed:
                node = self._makers[name]
                if node.op_type == "Shape" and node.input[0] in self._makers:
                    fed[name] = np.ones(2, np.int64)
                elif node.name not in names:
                    names.add(node.name)
                    todo += [n for n in node.input if n]
        ordered = [n for n in self._model.graph.node if n.name in names]
        inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, None) for n in (*fed, "input_ids")]
        result = helper.make_tensor_value_info(value, TensorProto.FLOAT, None)
        graph = helper.make_graph(ordered, "part", inputs, [result], [self._loaded(n) for n in sorted(constants)])
        model = helper.make_model(
            graph,
            ir_version=self._model.ir_version,
            opset_imports=self._model.opset_import,
            functions=self._model.functions,
        )
        evaluator = ReferenceEvaluator(model)
        unasked = {"input_ids": np.zeros((1, 1), np.int64), **fed}

        def evaluate(feeds: dict[str, Array]) -> Array:
            results: Any = evaluator.run(None, {**unasked, **feeds})
            found: Array = results[0]
            return found

        return evaluate

    def blocks(self, codes: str, scales: str, zeros: str, node: onnx.NodeProto) -> Array:
        """float32 (rows, blocks * block size) of what `MatMulNBits` and `GatherBlockQuantized` read, and `QMoE`, whose
        experts lie one below the other."""
        bits = _attribute(node, "bits") or _attribute(node, "expert_weight_bits")
        packed, scale = self.constant(codes), self.constant(scales)
        if packed is None or scale is None:
            raise EdgeqError(f"the graph has no constants {codes}, {scales}", where=self._path)
        scale = scale.reshape(-1, scale.shape[-1])
        packed = packed.reshape(*scale.shape, -1)
        values = _unpacked(packed, bits).astype(np.float32)
        zero: Any = np.float32(1 << (bits - 1))
        if zeros:
            stored = self.constant(zeros)
            assert stored is not None
            if stored.ndim == 2 or node.op_type == "QMoE":  # packed like the codes
                stored = stored.reshape(len(scale), -1)
                stored = _unpacked(stored, bits)[:, : scale.shape[1], None]
            zero = stored.astype(np.float32)
        out: Array = ((values - zero) * scale[:, :, None]).reshape(len(values), -1)
        return out


def _unpacked(packed: Array, bits: int) -> Array:
    """Codes of bytes along the last axis, the first in the low bits."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return ((packed[..., None] >> shifts) & ((1 << bits) - 1)).reshape(*packed.shape[:-1], -1)


def _input(node: onnx.NodeProto, index: int) -> str:
    """The name of an optional input, empty where it is left out."""
    return str(node.input[index]) if len(node.input) > index else ""


def _attribute(node: onnx.NodeProto, name: str) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), 0)
