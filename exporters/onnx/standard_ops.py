"""The decoder emitted in standard ONNX operators: any runtime of opset 23 runs it, onnxruntime as fast as its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto

from edgeq.checkpoint.weights import Weights, dense
from edgeq.estimate.onnx_grids import Pack
from edgeq.exporters.folder import rounded_inputs
from edgeq.exporters.onnx.activations import RoundedProducts
from edgeq.exporters.onnx.graph import Graph
from edgeq.exporters.onnx.kv_cache import Caches
from edgeq.exporters.onnx.onnx_ops import FLOAT_CACHES, OnnxOps
from edgeq.exporters.onnx.rope_nodes import RopeNodes
from edgeq.exporters.onnx.standard_matrices import StandardMatrices
from edgeq.model.spec import MLP, Attention, MoE, Rope

# RMSNormalization, RotaryEmbedding and Attention came with opset 23, whose IR version is 11.
IR_VERSION, OPSET = 11, 23
# What a runtime has to know of the caches: each call gives new ones, longer by its tokens, and takes those of the last.
GROWING = {"edgeq.cache": "growing"}


class StandardOps(OnnxOps):
    """`OnnxOps` with the standard operator wherever that emits one of onnxruntime's.

    One more input: `position_ids` int64 (batch, tokens). Caches grow: `present` is `past` with this call's tokens.
    """

    def __init__(
        self,
        graph: Graph,
        weights: Weights,
        *,
        pack: Pack,
        positions: int,
        done: Callable[[str], None],
        activation_scales: str = "token",
        caches: Caches = FLOAT_CACHES,
    ) -> None:
        super().__init__(graph, weights, accuracy_level=0, positions=positions, done=done, caches=caches)
        self._matrices = StandardMatrices(graph, 0, pack, unsigned=bool(rounded_inputs(weights)))
        self._rounded = RoundedProducts(graph, self._matrices, activation_scales)
        self._rope = GivenPositions(graph, weights.spec, positions)
        self._masks: dict[int | None, str] = {}
        self._declare()

    def _declare(self) -> None:
        self._graph.metadata.update(GROWING)

    def add_norm(self, x: str, delta: str, name: str) -> tuple[str, str]:
        total = self._graph.add("Add", [x, delta], f"{name}.stream")
        return self._norm(total, name), total

    def attention(self, qkv: str, layer: int, spec: Attention) -> str:
        at, graph = f"layers.{layer}", self._graph
        widths = self._sizes(spec.heads * spec.head_dim, *(spec.kv_heads * spec.head_dim,) * 2)
        q, k, v = (f"{qkv}.{n}" for n in "qkv")
        graph.add("Split", [qkv, widths], [q, k, v], axis=-1)
        if spec.qk_norm != "none":
            q, k = (self._norm_heads(x, f"{at}.{n}_norm", spec) for x, n in ((q, "q"), (k, "k")))
        q, k = self._turned(q, spec.heads, spec), self._turned(k, spec.kv_heads, spec)
        past, present = self._caches.declare(self._graph, layer, spec)
        attributes: dict[str, Any] = {"q_num_heads": spec.heads, "kv_num_heads": spec.kv_heads}
        attributes |= {"scale": spec.scale} | self._softcap(spec)
        inputs, y = [q, k, v, self._mask(spec.window), *past], f"{at}.attention"
        if not spec.sinks:
            return graph.add("Attention", inputs, [y, *present], **attributes)
        scores = f"{at}.scores"
        attributes["qk_matmul_output_mode"] = 2  # as the softmax takes them
        graph.add("Attention", inputs, [f"{y}.unsunk", *present, scores], **attributes)
        return self._sunk(f"{y}.unsunk", scores, at, spec)

    def _sunk(self, y: str, scores: str, at: str, spec: Attention) -> str:
        """`y`, made with weights that add up to one, by what is left of one when each head's sink has taken its share:
        `sum(exp(scores)) / (sum(exp(scores)) + exp(sink))`."""
        graph = self._graph
        sinks = graph.numbers(f"{at}.sinks", dense(self._weights.load(f"{at}.sinks")).reshape(1, -1, 1, 1))
        last = graph.constant("last_axis", np.array([-1], np.int64))
        total = graph.add("ReduceLogSumExp", [scores, last], f"{scores}.total", keepdims=1)
        left = graph.add("Sigmoid", [graph.add("Sub", [total, sinks], f"{scores}.over")], f"{at}.left")
        left = graph.add("Transpose", [left], f"{at}.left_by_token", perm=[0, 2, 1, 3])
        split = graph.constant(f"heads_of_{spec.head_dim}", np.array([0, 0, -1, spec.head_dim], np.int64))
        heads = graph.add("Mul", [graph.add("Reshape", [y, split], f"{y}.heads"), left], f"{y}.weighed")
        joined = graph.constant("joined_heads", np.array([0, 0, -1], np.int64))
        return graph.add("Reshape", [heads, joined], f"{at}.attention")

    def _routed(self, x: str, layer: int, spec: MoE) -> str:
        return self._split_experts.routed(x, layer, spec)

    def _softcap(self, spec: Attention) -> dict[str, Any]:
        return {} if spec.softcap is None else {"softcap": spec.softcap}

    def _turned(self, x: str, heads: int | None, spec: Attention) -> str:
        """`heads`: None for one of four dimensions, which shows them."""
        if spec.rope is None:
            return x
        tables = self._rope.inputs(spec.rope)
        part: dict[str, Any] = {} if spec.rope.dim == spec.head_dim else {"rotary_embedding_dim": spec.rope.dim}
        if heads is not None:
            part["num_heads"] = heads
        return self._graph.add("RotaryEmbedding", [x, *tables], f"{x}.turned", **part)

    def _lengths(self) -> None:
        """The places in the cache that this call's tokens take, and all places there are then."""
        graph = self._graph
        self._attended = graph.input("attention_mask", TensorProto.INT64, ["batch", "total"])
        graph.input("position_ids", TensorProto.INT64, ["batch", "tokens"])
        zero, one = (graph.constant(n, np.array(v, np.int64)) for n, v in (("zero_scalar", 0), ("one_scalar", 1)))
        sizes = (("past_key_values.0.key", 2, "past_length"), ("input_ids", 1, "token_count"))
        for source, axis, name in (*sizes, ("attention_mask", 1, "total")):
            size = graph.add("Shape", [source], f"{name}.shape", start=axis, end=axis + 1)
            graph.add("Squeeze", [size], name)
        graph.add("Add", ["past_length", "token_count"], "cache_length")
        graph.add("Range", [zero, "cache_length", one], "places")
        own = graph.add("Range", ["past_length", "cache_length", one], "own_places")
        graph.add("Unsqueeze", [own, graph.constant("last_axis", np.array([-1], np.int64))], "own_column")

    def _mask(self, window: int | None) -> str:
        """bool (batch, 1, tokens, cache length): the keys each token may see, made once for all layers of a window."""
        if window not in self._masks:
            self._masks[window] = self._make_mask(window)
        return self._masks[window]

    def _make_mask(self, window: int | None) -> str:
        graph, name = self._graph, f"mask_{window or 'all'}"
        seen = graph.add("LessOrEqual", ["places", "own_column"], f"{name}.causal")
        if window is not None:
            size = graph.constant(f"{name}.window", np.array(window, np.int64))
            first = graph.add("Sub", ["own_column", size], f"{name}.before")
            near = graph.add("Greater", ["places", first], f"{name}.near")
            seen = graph.add("And", [seen, near], f"{name}.seen")
        return self._unhidden(seen, name)

    def _unhidden(self, seen: str, name: str) -> str:
        """`seen`, less what the caller's mask hides."""
        return self._graph.add("And", [seen, self._unpadded()], name)

    def _unpadded(self) -> str:
        """bool (batch, 1, 1, cache length) of the caller's mask, which may be longer than the cache."""
        graph = self._graph
        if not self._masks:
            axis, start = (graph.constant(f"mask.{n}", np.array([v], np.int64)) for n, v in (("axis", 1), ("start", 0)))
            end = graph.add("Unsqueeze", ["cache_length", start], "mask.end")
            kept = graph.add("Slice", [self._attended, start, end, axis], "mask.kept")
            kept = graph.add("Cast", [kept], "mask.bool", to=TensorProto.BOOL)
            graph.add("Unsqueeze", [kept, graph.constant("mask.axes", np.array([1, 2], np.int64))], "unpadded")
        return "unpadded"

    def _norm(self, x: str, name: str) -> str:
        return self._graph.add(
            "RMSNormalization",
            [x, self._norm_weight(name)],
            f"{name}.out",
            axis=-1,
            epsilon=self.spec.norm_eps,
            stash_type=1,
        )

    def _activation(self, x: str, spec: MLP) -> str:
        if spec.activation != "silu":
            return super()._activation(x, spec)
        return self._graph.add("Mul", [x, self._graph.add("Sigmoid", [x], f"{x}.sigmoid")], f"{x}.act")


class GivenPositions(RopeNodes):
    """The caller says at which positions its tokens are."""

    def inputs(self, rope: Rope | None) -> list[str]:
        found = super().inputs(rope)
        return [*found, "position_ids"] if len(found) == 2 else found

    def _shifted_positions(self, switch: int, number: int) -> str:
        """Position ids, plus `switch` where the sequence will be longer than that, as the mask's length says."""
        graph, at = self._graph, f"positions_{number}"
        limit = graph.constant(f"{at}.switch", np.array(switch, np.int64))
        long = graph.add("Greater", ["total", limit], f"{at}.long")
        shift = graph.add("Where", [long, limit, graph.constant("zero_scalar", np.array(0, np.int64))], f"{at}.shift")
        return graph.add("Add", ["position_ids", shift], at)
