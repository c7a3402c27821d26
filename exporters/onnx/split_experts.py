"""Mixtures of experts as a product for each expert, in standard operators, for whatever grid a matrix may have.

    tokens, each as often as it has experts, sorted by expert -> Split, one part an expert -> its product with gate and
    up -> Concat -> activation -> Split -> its product with down -> Concat -> back in the tokens' order -> weighted sum

A part has as many rows as tokens chose its expert, often none, and a product of no rows costs next to nothing: so a
token reads the weights of its own experts alone, without a branch in the graph, and every matrix is a constant of its
own that onnxruntime fuses with its `DequantizeLinear`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgeq.checkpoint.activation import ActivationGrid
from edgeq.checkpoint.weights import Weight, Weights, activation_of, dense
from edgeq.exporters.onnx.graph import Graph
from edgeq.exporters.stacked import expert_of
from edgeq.model.spec import MLP, MoE

F32 = npt.NDArray[np.float32]


class Product(Protocol):
    """`x @ concat(weights).T + bias` with inputs rounded to the grid, if there is one; emitted as nodes."""

    def __call__(
        self, x: str, name: str, weights: list[Weight], bias: F32 | None, grid: ActivationGrid | None
    ) -> str: ...


class SplitExperts:
    """Emits the experts of layers.

    Args:
        product: emits one product.
        act: emits an MLP's activation of a value.
    """

    def __init__(self, graph: Graph, weights: Weights, product: Product, act: Callable[[str, MLP], str]) -> None:
        self._graph, self._weights, self._product, self._act = graph, weights, product, act

    def routed(self, x: str, layer: int, spec: MoE) -> str:
        """What the routed experts give for x (batch, tokens, hidden)."""
        graph, at = self._graph, f"layers.{layer}.experts"
        hidden = self._weights.spec.hidden_size
        flat = graph.add("Reshape", [x, self._ints(f"rows_of_{hidden}", [-1, hidden])], f"{at}.tokens")
        weights, chosen = self._routing(flat, layer, spec)
        choices = graph.add("Reshape", [chosen, self._ints("one_row", [1, -1])], f"{at}.choices")
        order = self._order(choices, f"{at}.order")
        token = graph.add("Div", [order, self._ints(f"each_of_{spec.active}", spec.active)], f"{at}.token")
        sorted_ = graph.add("Gather", [flat, token], f"{at}.sorted", axis=0)
        counts = self._counts(choices, at, spec)
        both = self._products(sorted_, counts, layer, ("gate", "up"), spec)
        inner = self._activated(both, at, spec)
        downs = self._products(inner, counts, layer, ("down",), spec)
        back = graph.add("Gather", [downs, self._order(order, f"{at}.back")], f"{at}.unsorted", axis=1)
        shape = self._ints(f"choices_of_{spec.active}_{hidden}", [-1, spec.active, hidden])
        by_token = graph.add("Reshape", [back, shape], f"{at}.by_token")
        column = graph.add("Unsqueeze", [weights, self._ints("last_axis", [-1])], f"{at}.column")
        weighed = graph.add("Mul", [by_token, column], f"{at}.weighed")
        total = graph.add("ReduceSum", [weighed, self._ints("choice_axis", [1])], f"{at}.sum", keepdims=0)
        return graph.add("Reshape", [total, graph.add("Shape", [x], f"{at}.shape")], at)

    def gated(self, x: str, y: str, name: str) -> str:
        """`y * sigmoid(x @ weight.T)`."""
        weight = self._graph.numbers(name, dense(self._weights.load(name)).reshape(1, -1).T)
        gate = self._graph.add("Sigmoid", [self._graph.add("MatMul", [x, weight], f"{name}.out")], f"{name}.gate")
        return self._graph.add("Mul", [y, gate], f"{name}.gated")

    def _routing(self, flat: str, layer: int, spec: MoE) -> tuple[str, str]:
        """Weights and experts int64 of tokens: each (tokens, active)."""
        graph, name = self._graph, f"layers.{layer}.router"
        weight = graph.numbers(name, np.ascontiguousarray(dense(self._weights.load(name)).T))
        y = graph.add("MatMul", [flat, weight], f"{name}.out")
        if spec.router_bias:
            bias = graph.numbers(f"{name}_bias", dense(self._weights.load(f"{name}_bias")))
            y = graph.add("Add", [y, bias], f"{name}.biased")
        if spec.routing == "all":
            y = graph.add("Softmax", [y], f"{name}.weights", axis=-1)
        largest, chosen = f"{name}.largest", f"{name}.chosen"
        graph.add("TopK", [y, self._ints(f"active_{spec.active}", [spec.active])], [largest, chosen], axis=-1)
        if spec.routing == "top":
            largest = graph.add("Softmax", [largest], f"{name}.weights", axis=-1)
        return largest, chosen

    def _order(self, values: str, name: str) -> str:
        """int64 (1, n): which of n int64 values is the smallest, which the next, ..."""
        graph = self._graph
        count = graph.add("Shape", [values], f"{name}.count", start=1)
        graph.add("TopK", [values, count], [f"{name}.values", name], axis=-1, largest=0, sorted=1)
        return name

    def _counts(self, chosen: str, at: str, spec: MoE) -> str:
        """int64 (experts,): how often each is chosen."""
        graph = self._graph
        each = self._ints(f"all_of_{spec.experts}", list(range(spec.experts)))
        column = graph.add("Unsqueeze", [chosen, self._ints("last_axis", [-1])], f"{at}.choice")
        same = graph.add("Equal", [column, each], f"{at}.same")
        ones = graph.add("Cast", [same], f"{at}.ones", to=7)  # TensorProto.INT64
        return graph.add("ReduceSum", [ones, self._ints("first_axes", [0, 1])], f"{at}.counts", keepdims=0)

    def _products(self, x: str, counts: str, layer: int, roles: tuple[str, ...], spec: MoE) -> str:
        """(1, rows, outputs): each part of x (1, rows, inputs) with the matrices of its expert."""
        graph, at = self._graph, f"layers.{layer}."
        names = [f"{at}experts_{role}" for role in roles]
        stacked = [self._weights.load(n) for n in names]
        biases = [dense(self._weights.load(f"{n}_bias")) for n in names] if spec.expert_bias else []
        grid = activation_of(self._weights, names[0])
        parts = [f"{at}experts.{e}.{'_'.join(roles)}.in" for e in range(spec.experts)]
        graph.add("Split", [x, counts], parts, axis=1)
        made = []
        for e, part in enumerate(parts):
            bias = np.concatenate([b[e] for b in biases]) if biases else None
            weights = [expert_of(w, e, spec.experts) for w in stacked]
            made.append(self._product(part, part.removesuffix(".in"), weights, bias, grid))
        return graph.add("Concat", made, f"{at}experts.{'_'.join(roles)}", axis=1)

    def _activated(self, both: str, at: str, spec: MoE) -> str:
        graph, sizes = self._graph, self._ints(f"halves_of_{spec.intermediate}", [spec.intermediate] * 2)
        gate, up = f"{both}.gate", f"{both}.up"
        graph.add("Split", [both, sizes], [gate, up], axis=-1)
        if spec.limit is None:
            return graph.add("Mul", [self._act(gate, MLP(spec.intermediate, spec.activation)), up], f"{at}.inner")
        low, high = self._float(-spec.limit), self._float(spec.limit)
        gate = graph.add("Clip", [gate, "", high], f"{gate}.limited")
        up = graph.add("Clip", [up, low, high], f"{up}.limited")
        steep = graph.add("Mul", [gate, self._float(spec.alpha)], f"{gate}.steep")
        swish = graph.add("Mul", [gate, graph.add("Sigmoid", [steep], f"{gate}.sigmoid")], f"{gate}.act")
        return graph.add("Mul", [graph.add("Add", [up, self._float(1.0)], f"{up}.raised"), swish], f"{at}.inner")

    def _ints(self, name: str, values: Any) -> str:
        return self._graph.constant(name, np.array(values, np.int64))

    def _float(self, value: float) -> str:
        return self._graph.numbers(f"scalar_{value!r}", np.array(value, np.float32))
