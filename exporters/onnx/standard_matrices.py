"""Weight matrices in standard operators only: a blocked `DequantizeLinear` and `MatMul`.

The weight is [K, N] with blocks along axis 0, one `DequantizeLinear` a `MatMul`: the form that onnxruntime fuses to
`MatMulNBits` at load. A symmetric grid is stored signed, without zero points; another unsigned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.estimate.onnx_grids import Pack
from edgeq.exporters.onnx import packing
from edgeq.exporters.onnx.graph import Graph
from edgeq.exporters.onnx.matrices import Matrices
from edgeq.exporters.onnx.packing import Layout, layout

F32 = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

_TYPES = {
    (2, True): TensorProto.INT2,
    (2, False): TensorProto.UINT2,
    (4, True): TensorProto.INT4,
    (4, False): TensorProto.UINT4,
    (8, True): TensorProto.INT8,
    (8, False): TensorProto.UINT8,
}
_TWO_BIT_VERSIONS = 13, 25  # IR and opset that have INT2 and UINT2
_BYTES = 1 << 22  # of codes transposed at once


class StandardMatrices(Matrices):
    """Matrices without an operator of onnxruntime's own.

    Args:
        unsigned: bytes have no sign, as in graphs with rounded products: where those need
            `session.x64quantprecision` (x86-64 without VNNI), onnxruntime 1.31 turns every int8 constant into uint8 and
            gives it a zero point that a blocked `DequantizeLinear` can't take.
    """

    def __init__(self, graph: Graph, accuracy_level: int, pack: Pack = "fast", *, unsigned: bool = False) -> None:
        super().__init__(graph, accuracy_level, pack)
        self._unsigned = unsigned

    def _kernel_rows(self, ids: str, name: str, weight: QuantizedTensor) -> str:
        """Embedding rows. Only theirs are dequantized: the codes, scales and zero points of their columns are gathered.

        Three limits of runtimes: onnxruntime gathers no element smaller than a byte, so those are cast first, which it
        does once, at load; it fuses no product whose weight is read elsewhere too, so what is read here has a second
        name for the same bytes; and OpenVINO dequantizes constants only, so the arithmetic is spelt out.
        """
        graph = self.graph
        form, _ = self._store(name, [weight])
        blocks = graph.constant(f"{name}.block_of", np.arange(form.columns) // form.block)
        floats = {}
        for part in self._parts(name, form):
            kind = part.removeprefix(f"{name}.")
            x = graph.alias(f"{part}.looked_up", part)
            if form.bits < 8 and kind != "scales":
                whole_bytes = TensorProto.INT8 if form.symmetric else TensorProto.UINT8
                x = graph.add("Cast", [x], f"{part}.bytes", to=whole_bytes)
            x = graph.add("Gather", [x, ids], f"{part}.picked", axis=1)
            if kind != "scales":
                x = graph.add("Cast", [x], f"{part}.float", to=graph.float_type)
            if kind != "codes":
                x = graph.add("Gather", [x, blocks], f"{part}.spread", axis=0)
            floats[kind] = x
        y = floats["codes"]
        if "zeros" in floats:
            y = graph.add("Sub", [y, floats["zeros"]], f"{name}.centered")
        y = graph.add("Mul", [y, floats["scales"]], f"{name}.columns")
        return graph.add("Transpose", [y], f"{name}.rows", perm=[1, 2, 0])

    def tied_product(self, x: str, name: str, stored: str, bias: F32 | None) -> str:
        """`x @ stored.T + bias` with a matrix that `rows` has stored."""
        if stored in self._shared or self.unpacked.has(stored):
            return super().tied_product(x, name, stored, bias)
        # The transposition belongs to Gemm, which has no copy of the matrix made for it, and takes two dimensions.
        graph, group = self.graph, name.removesuffix(".out")
        width = int(graph.shape(stored)[1])
        rows = graph.add("Reshape", [x, graph.constant(f"{group}.flat", np.array([-1, width], np.int64))], f"{x}.flat")
        inputs = [rows, stored] if bias is None else [rows, stored, graph.numbers(f"{group}.bias", bias)]
        flat = graph.add("Gemm", inputs, f"{group}.product", transB=1)
        size = graph.constant(f"{group}.size", np.array([graph.shape(stored)[0]], np.int64))
        outer = graph.add("Shape", [x], f"{x}.outer", end=2)
        return graph.add("Reshape", [flat, graph.add("Concat", [outer, size], f"{group}.shape", axis=0)], name)

    def _matmul_nbits(self, x: str, output: str, stored: str, bias: F32 | None) -> str:
        form, _ = self._shared[stored]
        weight = self.graph.add(
            "DequantizeLinear", self._parts(stored, form), f"{stored}.weight", axis=0, block_size=form.block
        )
        return self._times(x, weight, output.removesuffix(".out"), bias)

    def _parts(self, stored: str, form: Layout) -> list[str]:
        return [f"{stored}.{part}" for part in ("codes", "scales", *(() if form.symmetric else ("zeros",)))]

    def _store(self, name: str, weights: Sequence[QuantizedTensor]) -> tuple[Layout, int]:
        """Stream codes [K, N], scales and zero points [blocks, N] of matrices side by side."""
        form, rows = layout(weights[0]), sum(w.shape[0] for w in weights)
        if self._unsigned and form.bits == 8:
            form = replace(form, symmetric=False)
        kind = _TYPES[form.bits, form.symmetric]
        if form.bits == 2:
            self.graph.require(*_TWO_BIT_VERSIONS)
        self.graph.packed(f"{name}.codes", kind, (form.columns, rows), form.bits, _codes(weights, form))
        scales = np.concatenate([packing.scales(w) for w in weights]).T
        self.graph.stream(f"{name}.scales", self.graph.floats, (form.blocks, rows), [scales])
        if not form.symmetric:
            zeros = _flat(np.concatenate([_zero_points(w, form) for w in weights]).T, form.bits)
            self.graph.packed(f"{name}.zeros", kind, (form.blocks, rows), form.bits, [zeros])
        self._shared[name] = (form, rows)
        return form, rows


def _zero_points(weight: QuantizedTensor, form: Layout) -> Bytes:
    """uint8 (N, blocks)."""
    if weight.zero_points is None:
        return np.full((weight.shape[0], form.blocks), 1 << (form.bits - 1), np.uint8)
    return packing.zero_points(weight)


def _codes(weights: Sequence[QuantizedTensor], form: Layout) -> Iterator[Bytes]:
    step = 8 * max(1, _BYTES // sum(w.shape[0] for w in weights) // 8)  # so many channels fill whole bytes
    for start in range(0, form.columns, step):
        part = np.concatenate([w.codes[:, start : start + step] for w in weights]).T
        if form.symmetric:  # a code of two's complement has the highest bit the other way round
            part = part ^ np.uint8(1 << (form.bits - 1))
        yield _flat(part, form.bits)


def _flat(codes: Bytes, bits: int) -> Bytes:
    """Packed over the whole tensor, not row by row, as ONNX has it."""
    packed: Bytes = packing.pack_bits(np.ascontiguousarray(codes).reshape(1, -1), bits)[0]
    return packed
