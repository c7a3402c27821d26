"""Weight matrices as ONNX nodes: `MatMulNBits` for what it takes, `MatMul` for float ones and what functions unpack."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgeq.checkpoint.integers import Shifted
from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.checkpoint.weights import Weight
from edgeq.estimate.onnx_grids import Pack
from edgeq.exporters.onnx import packing
from edgeq.exporters.onnx.graph import MICROSOFT, Graph
from edgeq.exporters.onnx.grids import Stored, as_stored, has_kernel
from edgeq.exporters.onnx.offsets import Offsets
from edgeq.exporters.onnx.packing import Layout, layout
from edgeq.exporters.onnx.planes import PlaneLayout
from edgeq.exporters.onnx.unpacked import UnpackedMatrices

F32 = npt.NDArray[np.float32]


class Matrices:
    """Emits products with weight matrices.

    Args:
        accuracy_level: of `MatMulNBits`: 4 quantizes activations to int8 per block (fast), 0 keeps them in float32.
        pack: see `edgeq.exporters.onnx.grids.as_stored`.
    """

    def __init__(self, graph: Graph, accuracy_level: int, pack: Pack = "fast") -> None:
        self.graph = graph
        self.accuracy_level = accuracy_level
        self.pack = pack
        self.unpacked = UnpackedMatrices(graph)
        self.offsets = Offsets(graph)
        self._shared: dict[str, tuple[Layout, int]] = {}

    def product(self, x: str, name: str, weights: Sequence[Weight], bias: F32 | None) -> str:
        """`x @ concat(weights).T + bias`. Matrices of one layout become one node."""
        return self._product(x, name, [as_stored(w, self.pack) for w in weights], bias)

    def _product(self, x: str, name: str, weights: Sequence[Stored], bias: F32 | None) -> str:
        if len({_form(w) for w in weights}) > 1:
            return self._separate(x, name, weights, bias)
        if shifted := [w for w in weights if isinstance(w, Shifted)]:
            self.offsets.store(name, shifted)
            y = self._quantized(x, name, [w.integers for w in shifted], None)
            return self._biased(self.offsets.added(y, x, name, name), name, bias)
        quantized = [w for w in weights if isinstance(w, QuantizedTensor)]
        if not quantized:
            return self._float(x, name, [w for w in weights if isinstance(w, np.ndarray)], bias)
        if has_kernel(quantized[0]):
            return self._quantized(x, name, quantized, bias)
        return self._times(x, self.unpacked.weight(name, quantized, x), name, bias)

    def rows(self, ids: str, name: str, weight: Weight) -> str:
        """Embedding: rows of `weight` at `ids`. `tied_product` may then use the same stored matrix."""
        stored = as_stored(weight, self.pack)
        if isinstance(stored, np.ndarray):
            return self.graph.add("Gather", [self.graph.numbers(name, stored), ids], f"{name}.rows")
        if isinstance(stored, Shifted):
            self.offsets.store(name, [stored])
            return self.offsets.added_rows(self._kernel_rows(ids, name, stored.integers), ids, name)
        if not has_kernel(stored):
            return self.unpacked.rows(ids, name, stored)
        return self._kernel_rows(ids, name, stored)

    def _kernel_rows(self, ids: str, name: str, weight: QuantizedTensor) -> str:
        graph = self.graph
        form, rows = self._store(name, [weight])
        # The codes are (rows, blocks, bytes), as MatMulNBits wants them, so a row comes out as (blocks, block).
        scales = graph.constant(f"{name}.scales_3d", np.array([rows, form.blocks, 1], np.int64))
        inputs = [f"{name}.codes", ids, graph.add("Reshape", [f"{name}.scales", scales], f"{name}.row_scales")]
        if weight.zero_points is not None:
            inputs.append(graph.constant(f"{name}.row_zeros", packing.zero_points(weight)[:, :, None]))
        sizes = {"bits": form.bits, "block_size": form.block, "gather_axis": 0, "quantize_axis": 2}
        blocks = graph.add("GatherBlockQuantized", inputs, f"{name}.blocks", domain=MICROSOFT, **sizes)
        whole = graph.constant(f"{name}.row_shape", np.array([0, 0, form.blocks * form.block], np.int64))
        y = graph.add("Reshape", [blocks, whole], f"{name}.rows")
        if form.blocks * form.block == form.columns:
            return y
        cut = [graph.constant(f"{name}.cut{i}", np.array([v], np.int64)) for i, v in enumerate((0, form.columns, 2))]
        return graph.add("Slice", [y, *cut], f"{name}.rows_cut")

    def tied_product(self, x: str, name: str, stored: str, bias: F32 | None) -> str:
        """`x @ stored.T + bias` with a matrix that `rows` has stored."""
        if self.offsets.has(stored):
            group, y = name.removesuffix(".out"), self._matmul_nbits(x, name, stored, None)
            return self._biased(self.offsets.added(y, x, stored, group), group, bias)
        if stored in self._shared:
            return self._matmul_nbits(x, name, stored, bias)
        if self.unpacked.has(stored):
            return self._times(x, self.unpacked.stored_weight(stored, x), name.removesuffix(".out"), bias)
        y = self.graph.add("FusedMatMul", [x, stored], name, domain=MICROSOFT, transB=1)
        return self._biased(y, name, bias)

    def _quantized(self, x: str, name: str, weights: Sequence[QuantizedTensor], bias: F32 | None) -> str:
        self._store(name, weights)
        return self._matmul_nbits(x, f"{name}.out", name, bias)

    def _matmul_nbits(self, x: str, output: str, stored: str, bias: F32 | None) -> str:
        form, rows = self._shared[stored]
        inputs = [x, f"{stored}.codes", f"{stored}.scales", "" if form.symmetric else f"{stored}.zeros", ""]
        inputs.append("" if bias is None else self.graph.numbers(f"{output}.bias", bias))
        sizes = {"K": form.columns, "N": rows, "bits": form.bits, "block_size": form.block}
        return self.graph.add(
            "MatMulNBits", inputs, output, domain=MICROSOFT, accuracy_level=self.accuracy_level, **sizes
        )

    def _store(self, name: str, weights: Sequence[QuantizedTensor]) -> tuple[Layout, int]:
        """Stream codes, scales and zero points of matrices one below the other; only one is unpacked at a time."""
        form, rows = layout(weights[0]), sum(w.shape[0] for w in weights)
        shape = (rows, form.blocks, form.block * form.bits // 8)
        self.graph.stream(f"{name}.codes", np.uint8, shape, (part for w in weights for part in packing.codes(w)))
        self.graph.stream(f"{name}.scales", self.graph.floats, shape[:2], (packing.scales(w) for w in weights))
        if not form.symmetric:
            zeros = [packing.pack_bits(packing.zero_points(w), form.bits) for w in weights]
            self.graph.stream(f"{name}.zeros", np.uint8, (rows, zeros[0].shape[1]), zeros)
        self._shared[name] = (form, rows)
        return form, rows

    def _float(self, x: str, name: str, weights: Sequence[F32], bias: F32 | None) -> str:
        matrix = np.concatenate([w.T for w in weights], axis=1)
        return self._times(x, self.graph.numbers(name, matrix), name, bias)

    def _times(self, x: str, matrix: str, name: str, bias: F32 | None) -> str:
        return self._biased(self.graph.add("MatMul", [x, matrix], f"{name}.out"), name, bias)

    def _biased(self, y: str, name: str, bias: F32 | None) -> str:
        if bias is None:
            return y
        return self.graph.add("Add", [y, self.graph.numbers(f"{name}.bias", bias)], f"{name}.biased")

    def _separate(self, x: str, name: str, weights: Sequence[Stored], bias: F32 | None) -> str:
        parts, start = [], 0
        for i, weight in enumerate(weights):
            rows = weight.shape[0]
            own = None if bias is None else bias[start : start + rows]
            parts.append(self._product(x, f"{name}.{i}", [weight], own))
            start += rows
        return self.graph.add("Concat", parts, f"{name}.out", axis=-1)


def _form(weight: Stored) -> tuple[Layout, int] | Layout | PlaneLayout | None:
    """What has to agree for two matrices to be stored as one."""
    if isinstance(weight, Shifted):
        return layout(weight.integers), weight.integers.group_size
    if not isinstance(weight, QuantizedTensor):
        return None
    return layout(weight) if has_kernel(weight) else PlaneLayout(weight.shape[1], weight.grid)
