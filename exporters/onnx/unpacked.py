"""Weight matrices that no kernel takes: a function of the model unpacks their codes at every run.

At every run, and not before its turn: the codes take their shape from the product's other operand. Were they constants,
onnxruntime would fold the functions at load, which takes 22 bytes of memory a weight (measured; float32 alone would be
4), and were they ready from the start, it would unpack all matrices before the first layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.exporters.onnx.functions import function, function_name, plane_names
from edgeq.exporters.onnx.graph import EDGEQ, Graph
from edgeq.exporters.onnx.planes import PlaneLayout, planes

F32 = npt.NDArray[np.float32]


class UnpackedMatrices:
    """Emits the weight (channels, rows) of a product, and rows of an embedding."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._stored: dict[str, tuple[PlaneLayout, list[str]]] = {}

    def weight(self, name: str, weights: Sequence[QuantizedTensor], x: str) -> str:
        """float32 (channels, rows) of matrices side by side, to multiply `x` (batch, tokens, channels) with."""
        self._store(name, weights)
        return self.stored_weight(name, x)

    def has(self, stored: str) -> bool:
        return stored in self._stored

    def stored_weight(self, stored: str, x: str) -> str:
        """The whole matrix that `rows` has stored under this name."""
        graph, (form, inputs) = self._graph, self._stored[stored]
        size = graph.add("Shape", [x], f"{stored}.sizes", start=0, end=2)
        same = graph.add("Sub", [size, size], f"{stored}.same_shape")  # two zeros: as many as there are
        names = plane_names(form.grid)
        late = [graph.add("Reshape", [i, same], f"{i}.late") for i in inputs[: len(names)]]
        return self._dequantized(form, [*late, *inputs[len(names) :]], f"{stored}.weight")

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
        self._stored[name] = (form, inputs)
        return form, inputs

    def _dequantized(self, form: PlaneLayout, inputs: list[str], output: str) -> str:
        graph, grid = self._graph, form.grid
        op = graph.function(function_name(grid), partial(function, grid))
        cut, half = form.channels != form.columns, graph.floats != np.float32
        y = graph.add(op, inputs, f"{output}.padded" if cut else f"{output}.float32" if half else output, domain=EDGEQ)
        if cut:
            ends = [graph.constant(f"cut_{v}", np.array([v], np.int64)) for v in (0, form.columns)]
            y = graph.add("Slice", [y, *ends, ends[0]], f"{output}.float32" if half else output)
        return graph.add("Cast", [y], output, to=graph.float_type) if half else y
