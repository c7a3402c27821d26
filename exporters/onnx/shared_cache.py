"""Standard operators over caches of a fixed length: nothing is copied, at the price of an opset newer by one."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from edgeq.exporters.onnx.standard_ops import StandardOps
from edgeq.model.spec import Attention

# TensorScatter came with opset 24, whose IR version is 12.
IR_VERSION, OPSET = 12, 24
# What a runtime has to know of the caches: past and present may be one buffer, and all of its length is read.
SHARED = {"edgeq.cache": "shared"}


class SharedCacheOps(StandardOps):
    """`StandardOps` that write this call's keys and values into the buffer they were given (`TensorScatter`).

    Inputs and outputs are those of `OnnxOps`, so there are no position ids: a sequence has as many tokens as its mask
    counts, and the newest of them are this call's. `present` is shaped as `past`, (batch, kv_heads, places, head_dim);
    a runtime that binds one buffer to both copies nothing. Attention reads every place, also those not yet written, so
    the buffer should be little longer than the sequence.
    """

    def _declare(self) -> None:
        self._graph.metadata.update(SHARED)
        self._graph.require(IR_VERSION, OPSET)

    def attention(self, qkv: str, layer: int, spec: Attention) -> str:
        at, graph = f"layers.{layer}", self._graph
        q, k, v = self._by_head(qkv, at, spec)
        q, k = (self._turned(x, None, spec) for x in (q, k))
        past, present = self._caches.declare(graph, layer, spec)
        for new, old, both in zip((k, v), past, present, strict=True):
            graph.add("TensorScatter", [old, new, "first_places"], both, axis=2)
        y, inputs = f"{at}.attention", [q, *present, self._mask(spec.window)]
        attributes: dict[str, Any] = {"scale": spec.scale} | self._softcap(spec)
        if not spec.sinks:
            return self._joined(graph.add("Attention", inputs, f"{y}.heads", **attributes), y)
        scores = f"{at}.scores"
        graph.add("Attention", inputs, [f"{y}.unsunk", "", "", scores], qk_matmul_output_mode=2, **attributes)
        return self._sunk(self._joined(f"{y}.unsunk", f"{y}.unsunk.joined"), scores, at, spec)

    def _by_head(self, qkv: str, at: str, spec: Attention) -> list[str]:
        """Queries, keys and values (batch, heads, tokens, head_dim), the first two normalized where the model does."""
        graph, parts = self._graph, [f"{qkv}.{n}" for n in "qkv"]
        heads = (spec.heads, spec.kv_heads, spec.kv_heads)
        if spec.qk_norm == "full":  # over all heads of a token, so before they are parted
            whole = [f"{p}.whole" for p in parts]
            graph.add("Split", [qkv, self._sizes(*(n * spec.head_dim for n in heads))], whole, axis=-1)
            whole[:2] = [self._norm(x, f"{at}.{n}_norm") for x, n in zip(whole[:2], "qk", strict=True)]
            return [self._parted(x, y, spec) for x, y in zip(whole, parts, strict=True)]
        graph.add("Split", [self._parted(qkv, f"{qkv}.heads", spec), self._sizes(*heads)], parts, axis=1)
        if spec.qk_norm != "none":
            parts[:2] = [self._norm(x, f"{at}.{n}_norm") for x, n in zip(parts[:2], "qk", strict=True)]
        return parts

    def _parted(self, x: str, name: str, spec: Attention) -> str:
        """(batch, tokens, heads * head_dim) to (batch, heads, tokens, head_dim)."""
        split = self._graph.constant(f"heads_of_{spec.head_dim}", np.array([0, 0, -1, spec.head_dim], np.int64))
        parted = self._graph.add("Reshape", [x, split], f"{x}.split")
        return self._graph.add("Transpose", [parted], name, perm=[0, 2, 1, 3])

    def _joined(self, x: str, name: str) -> str:
        """(batch, heads, tokens, head_dim) to (batch, tokens, heads * head_dim)."""
        by_token = self._graph.add("Transpose", [x], f"{x}.by_token", perm=[0, 2, 1, 3])
        joined = self._graph.constant("joined_heads", np.array([0, 0, -1], np.int64))
        return self._graph.add("Reshape", [by_token, joined], name)

    def _lengths(self) -> None:
        """The place in the cache of each of this call's tokens, (batch, tokens), which is its position too."""
        graph = self._graph
        self._attended = graph.input("attention_mask", TensorProto.INT64, ["batch", "total"])
        zero, one = (graph.constant(n, np.array(v, np.int64)) for n, v in (("zero_scalar", 0), ("one_scalar", 1)))
        sizes = (("past_key_values.0.key", 2, "cache_length"), ("input_ids", 1, "token_count"))
        for source, axis, name in (*sizes, ("attention_mask", 1, "total")):
            size = graph.add("Shape", [source], f"{name}.shape", start=axis, end=axis + 1)
            graph.add("Squeeze", [size], name)
        ones = graph.constant("one", np.array([1], np.int64))
        count = graph.add("ReduceSum", ["attention_mask", ones], "mask_sum", keepdims=0)
        # A prompt that is padded at its end counts fewer tokens than it has; it begins at the first place all the same.
        graph.add("Max", [graph.add("Sub", [count, "token_count"], "before"), zero], "first_places")
        graph.add("Range", [zero, "cache_length", one], "places")
        column = graph.add("Unsqueeze", ["first_places", ones], "first_column")
        graph.add("Add", [column, graph.add("Range", [zero, "token_count", one], "row")], "position_ids")
        axes = graph.constant("own_axes", np.array([1, 3], np.int64))
        graph.add("Unsqueeze", ["position_ids", axes], "own_column")

    def _unhidden(self, seen: str, name: str) -> str:
        return seen  # what is not written yet lies behind every token, so nothing is left to hide
