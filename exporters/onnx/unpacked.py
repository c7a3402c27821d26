"""Weight matrices that no kernel takes: a function of the model unpacks their codes at every run.

The codes are inputs with a default. onnxruntime takes an initializer that a caller may override for no constant, so it
does not fold the function at load, which would need 22 bytes of memory a weight (measured; float32 alone would be 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
from onnx import helper

from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.exporters.onnx.functions import function, function_name
from edgeq.exporters.onnx.graph import EDGEQ, Graph
from edgeq.exporters.onnx.planes import PlaneLayout, planes

F32 = npt.NDArray[np.float32]


class UnpackedMatrices:
    """Emits the weight (channels, rows) of a product, and rows of an embedding."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._stored: dict[str, tuple[PlaneLayout, list[str]]] = {}

    def weight(self, name: str, weights: Sequence[QuantizedTensor]) -> str:
        """float32 (channels, rows) of matrices side by side, to multiply with."""
        form, inputs = self._store(name, weights)
        return self._dequantized(form, inputs, f"{name}.weight")

    def has(self, stored: str) -> bool:
        return stored in self._stored

    def stored_weight(self, stored: str) -> str:
        """The whole matrix that `rows` has stored under this name."""
        return self._dequantized(*self._stored[stored], f"{stored}.weight")

    def rows(self, ids: str, name: str, weight: QuantizedTensor) -> str:
        """Rows of an embedding (batch, tokens, channels): only theirs are unpacked."""
        graph = self._graph
        form, inputs = self._store(name, [weight])
        flat = graph.add("Reshape", [ids, graph.constant("flat", np.array([-1], np.int64))], f"{name}.flat_ids")
        picked = [
            i if i.startswith("table.") else graph.add("Gather", [i, flat], f"{i}.picked", axis=-1) for i in inputs
        ]
        found = graph.add(
            "Transpose", [self._dequantized(form, picked, f"{name}.columns")], f"{name}.found", perm=[1, 0]
        )
        width = graph.constant(f"{name}.width", np.array([form.columns], np.int64))
        shape = graph.add("Concat", [graph.add("Shape", [ids], f"{name}.ids_shape"), width], f"{name}.shape", axis=0)
        return graph.add("Reshape", [found, shape], f"{name}.rows")

    def _store(self, name: str, weights: Sequence[QuantizedTensor]) -> tuple[PlaneLayout, list[str]]:
        form = PlaneLayout(weights[0].shape[1], weights[0].grid)
        inputs = []
        for plane in planes(weights):
            if plane.name == "table":
                inputs.append(self._graph.constant(f"table.{form.grid.codebook}", next(plane.parts)))
                continue
            inputs.append(self._graph.stream(f"{name}.{plane.name}", plane.dtype, plane.shape, plane.parts))
            if plane.name.startswith("codes"):
                self._graph.input(inputs[-1], helper.np_dtype_to_tensor_dtype(plane.dtype), plane.shape)
        self._stored[name] = (form, inputs)
        return form, inputs

    def _dequantized(self, form: PlaneLayout, inputs: list[str], output: str) -> str:
        graph, grid = self._graph, form.grid
        op = graph.function(function_name(grid), partial(function, grid))
        if form.channels == form.columns:
            return graph.add(op, inputs, output, domain=EDGEQ)
        whole = graph.add(op, inputs, f"{output}.padded", domain=EDGEQ)
        cut = [graph.constant(f"cut_{v}", np.array([v], np.int64)) for v in (0, form.columns)]
        return graph.add("Slice", [whole, *cut, cut[0]], output)
