"""Groups whose weights have a float minimum: what the minima add to a product is a small product of its own.

`sum(x * (integer + offset)) = sum(x * integer) + sum over groups(sum(x in the group) * offset)`: the first is a
kernel's, the second has a float matrix of one number a group.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeq.checkpoint.integers import Shifted
from edgeq.exporters.onnx.graph import Graph


class Offsets:
    """Emits the second product, and the offsets of rows that are looked up."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._stored: dict[str, Shifted] = {}

    def store(self, name: str, weights: Sequence[Shifted]) -> None:
        """Offsets (groups, rows) of matrices side by side."""
        offsets = np.concatenate([w.offsets for w in weights]).T
        self._graph.stream(f"{name}.offsets", self._graph.floats, offsets.shape, [offsets])
        self._stored[name] = weights[0]

    def has(self, name: str) -> bool:
        return name in self._stored

    def added(self, y: str, x: str, stored: str, group: str) -> str:
        """The product `y` of `x` (batch, tokens, channels) with integers, and that with their offsets added."""
        graph, one = self._graph, self._stored[stored]
        columns, groups = one.shape[1], one.offsets.shape[1]
        size = one.integers.group_size
        if groups * size > columns:
            padding = graph.constant(
                f"pad_{columns}_{size}", np.array([0, 0, 0, 0, 0, groups * size - columns], np.int64)
            )
            x = graph.add("Pad", [x, padding], f"{group}.padded")
        shape = graph.constant(f"groups_{groups}_{size}", np.array([0, 0, groups, size], np.int64))
        axis = graph.constant("last_axis", np.array([-1], np.int64))
        grouped = graph.add("Reshape", [x, shape], f"{group}.groups")
        sums = graph.add("ReduceSum", [grouped, axis], f"{group}.sums", keepdims=0)
        minima = graph.add("MatMul", [sums, f"{stored}.offsets"], f"{group}.minima")
        return graph.add("Add", [y, minima], f"{group}.shifted")

    def added_rows(self, y: str, ids: str, stored: str) -> str:
        """Rows `y` (batch, tokens, channels) of integers, and their offsets added."""
        graph, one = self._graph, self._stored[stored]
        own = graph.add("Gather", [f"{stored}.offsets", ids], f"{stored}.offsets.picked", axis=1)
        own = graph.add("Transpose", [own], f"{stored}.offsets.turned", perm=[1, 2, 0])
        groups = graph.constant(f"{stored}.group_of", np.arange(one.shape[1]) // one.integers.group_size)
        spread = graph.add("Gather", [own, groups], f"{stored}.row_offsets", axis=2)
        return graph.add("Add", [y, spread], f"{stored}.rows_shifted")
