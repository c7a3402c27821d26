"""Rotary tables as constants of the graph, shared by the layers that turn alike."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgeq.decoder import rope as rotary
from edgeq.exporters.onnx.graph import Graph
from edgeq.model.spec import ModelSpec, Rope


class RopeNodes:
    """Args: positions: rows of the tables, the longest sequence that can be run."""

    def __init__(self, graph: Graph, spec: ModelSpec, positions: int) -> None:
        self._graph = graph
        self._spec = spec
        self._positions = positions
        self._known: dict[Rope, list[str]] = {}

    def inputs(self, rope: Rope | None) -> list[str]:
        """The rotary inputs of GroupQueryAttention: cosine and sine tables, and position ids where they are needed."""
        if rope is None:
            return []
        if rope not in self._known:
            self._known[rope] = self._make(rope, len(self._known))
        return self._known[rope]

    def _make(self, rope: Rope, number: int) -> list[str]:
        longest, switch = self._spec.max_positions, rotary.switch_length(rope, self._spec.max_positions)
        short = self._table(rope, longest, None, min(self._positions, switch or self._positions))
        if switch is None or switch >= self._positions:
            return self._constants(short, number)
        # Two sets of frequencies, chosen by the length of the whole sequence. Both tables go into one, and longer
        # sequences look up their positions further down: no copy of a table per step.
        long = self._table(rope, longest, self._positions, self._positions)
        both = (np.concatenate((short[0], long[0])), np.concatenate((short[1], long[1])))
        return [*self._constants(both, number), self._shifted_positions(switch, number)]

    def _table(
        self, rope: Rope, longest: int, length: int | None, rows: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        return rotary.tables(rotary.frequencies(rope, longest, length), np.arange(rows))

    def _constants(self, table: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]], number: int) -> list[str]:
        return [self._graph.numbers(f"rope_{n}_{number}", t) for n, t in zip(("cos", "sin"), table, strict=True)]

    def _shifted_positions(self, switch: int, number: int) -> str:
        """Position ids (batch, tokens), plus `switch` where the sequence is longer than that.

        Positions follow from how many tokens the mask counts, the set of frequencies from how long it is: so a caller
        who knows that a sequence will be long can say so from its first chunk on, with a mask that ends in zeros.
        """
        graph, at = self._graph, f"positions_{number}"
        limit = graph.constant(f"{at}.switch", np.array(switch, np.int64))
        zero, one = (graph.constant(n, np.array(v, np.int64)) for n, v in (("zero_scalar", 0), ("one_scalar", 1)))
        ids_shape = graph.add("Shape", ["input_ids"], f"{at}.ids_shape")
        tokens = graph.add("Gather", [ids_shape, one], f"{at}.tokens", axis=0)
        shift = graph.add("Where", [graph.add("Greater", ["total", limit], f"{at}.long"), limit, zero], f"{at}.shift")
        first = graph.add("Add", [graph.add("Sub", [shift, tokens], f"{at}.back"), "mask_sum"], f"{at}.first")
        column = graph.add("Unsqueeze", [first, graph.constant("one", np.array([1], np.int64))], f"{at}.column")
        return graph.add("Add", [column, graph.add("Range", [zero, tokens, one], f"{at}.row")], at)
