"""The decoder emitted as an ONNX graph, with onnxruntime's fused operators. A tensor is the name of a graph value."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from edgeq.checkpoint.activation import ActivationGrid
from edgeq.checkpoint.weights import Weight, Weights, activation_of, dense
from edgeq.decoder.ops import Ability
from edgeq.errors import EdgeqError
from edgeq.estimate.onnx_grids import Pack
from edgeq.exporters.onnx.activations import RoundedProducts
from edgeq.exporters.onnx.graph import MICROSOFT, Graph
from edgeq.exporters.onnx.kv_cache import Caches
from edgeq.exporters.onnx.matrices import Matrices
from edgeq.exporters.onnx.moe import ExpertNodes, fits
from edgeq.exporters.onnx.rope_nodes import RopeNodes
from edgeq.exporters.onnx.split_experts import SplitExperts
from edgeq.model.spec import MLP, Attention, ModelSpec, MoE
from edgeq.model.tensors import tensors

F32 = npt.NDArray[np.float32]
ABLE: frozenset[Ability] = frozenset({"experts", "sinks"})

# Tokens of this call whose logits are wanted: those from this position on, -1 being the last alone. An input with a
# default (all), so that callers that know nothing of it, onnxruntime-genai for one, need not feed it.
LOGITS_FROM = "logits_from"
_SINKS_AT, _SCALES_AT = 11, 12  # of GroupQueryAttention's inputs head_sink and k_scale
FLOAT_CACHES = Caches()


class OnnxOps:
    """`edgeq.decoder.ops.Ops` whose tensors are value names.

    Inputs of the graph are those of onnxruntime-genai: `input_ids`, `attention_mask`, `past_key_values.N.key` and
    `.value`; outputs `logits`, `present.N.key` and `.value`, caches (batch, kv_heads, tokens, head_dim).

    Args:
        done: called with the name of every matrix written.
        pack: see `edgeq.exporters.onnx.grids.as_stored`.
        activation_scales: see `RoundedProducts`.
        caches: their dtype and scales.
    """

    able = ABLE

    def __init__(
        self,
        graph: Graph,
        weights: Weights,
        *,
        accuracy_level: int,
        positions: int,
        done: Callable[[str], None],
        pack: Pack = "fast",
        activation_scales: str = "token",
        caches: Caches = FLOAT_CACHES,
    ) -> None:
        self.spec: ModelSpec = weights.spec
        self._graph = graph
        self._weights = weights
        self._done = done
        self._names = frozenset(t.name for t in tensors(weights.spec))
        self._matrices = Matrices(graph, accuracy_level, pack)
        self._rounded = RoundedProducts(graph, self._matrices, activation_scales)
        self._experts = ExpertNodes(graph, weights, accuracy_level)
        self._split_experts = SplitExperts(graph, weights, self._product, self._activation)
        self._caches = caches
        self._rope = RopeNodes(graph, weights.spec, positions)
        self.ids = graph.input("input_ids", TensorProto.INT64, ["batch", "tokens"])
        self._lengths()

    def embed(self, ids: str) -> str:
        y = self._matrices.rows(ids, "embed", self._weights.load("embed"))
        self._done("embed")
        return y

    def scale(self, x: str, factor: float) -> str:
        return self._graph.add("Mul", [x, self._scalar(factor)], f"{x}.scaled")

    def add(self, x: str, y: str) -> str:
        return self._graph.add("Add", [x, y], f"{y}.sum")

    def norm(self, x: str, name: str) -> str:
        return self._norm(x, name)

    def add_norm(self, x: str, delta: str, name: str) -> tuple[str, str]:
        y, total = f"{name}.out", f"{name}.stream"
        self._graph.add(
            "SkipSimplifiedLayerNormalization",
            [x, delta, self._norm_weight(name)],
            [y, "", "", total],
            domain=MICROSOFT,
            epsilon=self.spec.norm_eps,
        )
        return y, total

    def linear(self, x: str, names: tuple[str, ...]) -> str:
        layer, _, first = names[0].rpartition(".")
        group = f"{layer}.{'_'.join((first, *(n.rpartition('.')[2] for n in names[1:])))}"
        weights = [self._weights.load(n) for n in names]
        # Matrices that share an input share its grid.
        y = self._product(x, group, weights, self._biases(names), activation_of(self._weights, names[0]))
        self._done(group)
        return y

    def attention(self, qkv: str, layer: int, spec: Attention) -> str:
        at = f"layers.{layer}"
        q, k, v = self._normed(qkv, at, spec) if spec.qk_norm != "none" else (qkv, "", "")
        past, present = self._caches.declare(self._graph, layer, spec)
        rope = self._rope.inputs(spec.rope)
        inputs = [q, k, v, *past, "seqlens_k", "total_sequence_length", *rope]
        if spec.sinks:
            sinks = self._graph.numbers(f"{at}.sinks", dense(self._weights.load(f"{at}.sinks")))
            inputs += [""] * (_SINKS_AT - len(inputs)) + [sinks]
        if scales := self._caches.scales(self._graph, layer):
            inputs += [""] * (_SCALES_AT - len(inputs)) + scales
        attributes: dict[str, float | int | str] = {"num_heads": spec.heads, "kv_num_heads": spec.kv_heads}
        attributes |= {"scale": spec.scale, "do_rotary": int(spec.rope is not None)}
        attributes |= self._caches.attributes()
        if spec.window is not None:
            attributes["local_window_size"] = spec.window
        if spec.softcap is not None:
            attributes["softcap"] = spec.softcap
        return self._graph.add(
            "GroupQueryAttention",
            inputs,
            [f"{at}.attention", *present],
            domain=MICROSOFT,
            **attributes,
        )

    def activate(self, x: str, spec: MLP) -> str:
        if not spec.gated:
            return self._activation(x, spec)
        gate, up = f"{x}.gate", f"{x}.up"
        self._graph.add("Split", [x, self._sizes(spec.intermediate, spec.intermediate)], [gate, up], axis=-1)
        return self._graph.add("Mul", [self._activation(gate, spec), up], f"{x}.mul")

    def moe(self, x: str, layer: int, spec: MoE) -> str:
        y = self._routed(x, layer, spec)
        self._done(f"layers.{layer}.experts")
        return y

    def weigh(self, x: str, y: str, name: str) -> str:
        return self._split_experts.gated(x, y, name)

    def logits(self, x: str, scale: float, softcap: float | None) -> str:
        y = self._head(self._wanted(x))
        if softcap is None:
            if scale != 1.0:
                self.scale(y, scale)
        else:
            self.scale(self._graph.add("Tanh", [self.scale(y, scale / softcap)], "capped"), softcap)
        return self._graph.rename_result("logits")

    def finish(self, logits: str) -> None:
        """Declare the outputs, in the order that runtimes list them: logits, then the caches."""
        self._graph.output(logits, self._graph.float_type, ["batch", "logits", self.spec.vocab_size])
        self._graph.outputs.insert(0, self._graph.outputs.pop())

    def _routed(self, x: str, layer: int, spec: MoE) -> str:
        if fits(self._weights, layer):
            return self._experts.routed(x, layer, spec)
        return self._split_experts.routed(x, layer, spec)

    def _product(
        self, x: str, name: str, weights: Sequence[Weight], bias: F32 | None, grid: ActivationGrid | None
    ) -> str:
        if grid is None:
            return self._matrices.product(x, name, weights, bias)
        return self._rounded.product(x, name, weights, bias, grid)

    def _head(self, x: str) -> str:
        bias = dense(self._weights.load("head_bias")) if self.spec.head_bias else None
        if self.spec.tied:
            return self._matrices.tied_product(x, "head.out", "embed", bias)
        y = self._matrices.product(x, "head", [self._weights.load("head")], bias)
        self._done("head")
        return y

    def _wanted(self, x: str) -> str:
        """The hidden states whose logits are asked for: computing all of them costs more than a short prompt."""
        graph = self._graph
        start = graph.default_input(LOGITS_FROM, np.array([0], np.int64))
        end = graph.constant("to_the_end", np.array([np.iinfo(np.int64).max], np.int64))
        return graph.add("Slice", [x, start, end, graph.constant("token_axis", np.array([1], np.int64))], f"{x}.wanted")

    def _lengths(self) -> None:
        """`seqlens_k` (tokens before the newest) and the total, from the attention mask, once for all layers."""
        graph = self._graph
        mask = graph.input("attention_mask", TensorProto.INT64, ["batch", "total"])
        one, axis = graph.constant("one", np.array([1], np.int64)), graph.constant("last", np.array(1, np.int64))
        count = graph.add("ReduceSum", [mask, one], "mask_sum", keepdims=0)
        graph.add("Cast", [graph.add("Sub", [count, one], "newest")], "seqlens_k", to=TensorProto.INT32)
        graph.add("Gather", [graph.add("Shape", [mask], "mask_shape"), axis], "total", axis=0)
        graph.add("Cast", ["total"], "total_sequence_length", to=TensorProto.INT32)

    def _normed(self, qkv: str, at: str, spec: Attention) -> tuple[str, str, str]:
        """Queries, keys and values apart, the first two normalized (the CPU kernel has no norm of its own)."""
        q, kv = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
        parts = [f"{qkv}.{n}" for n in "qkv"]
        self._graph.add("Split", [qkv, self._sizes(q, kv, kv)], parts, axis=-1)
        normed = [self._norm_heads(p, f"{at}.{n}_norm", spec) for p, n in zip(parts[:2], "qk", strict=True)]
        return normed[0], normed[1], parts[2]

    def _norm_heads(self, x: str, name: str, spec: Attention) -> str:
        if spec.qk_norm == "full":
            return self._norm(x, name)
        split = self._graph.constant(f"heads_of_{spec.head_dim}", np.array([0, 0, -1, spec.head_dim], np.int64))
        joined = self._graph.constant("joined_heads", np.array([0, 0, -1], np.int64))
        y = self._norm(self._graph.add("Reshape", [x, split], f"{name}.heads"), name)
        return self._graph.add("Reshape", [y, joined], f"{name}.joined")

    def _norm(self, x: str, name: str) -> str:
        return self._graph.add(
            "SimplifiedLayerNormalization",
            [x, self._norm_weight(name)],
            f"{name}.out",
            axis=-1,
            epsilon=self.spec.norm_eps,
            stash_type=1,
        )

    def _norm_weight(self, name: str) -> str:
        return self._graph.numbers(name, dense(self._weights.load(name)) + np.float32(self.spec.norm_offset))

    def _biases(self, names: tuple[str, ...]) -> F32 | None:
        have = [f"{n}_bias" in self._names for n in names]
        if not any(have):
            return None
        if not all(have):
            raise EdgeqError(f"only some of {', '.join(names)} have a bias")
        return np.concatenate([dense(self._weights.load(f"{n}_bias")) for n in names])

    def _activation(self, x: str, spec: MLP) -> str:
        y, graph = f"{x}.act", self._graph
        if spec.activation == "silu":  # x * sigmoid(1 * x)
            return graph.add("QuickGelu", [x], y, domain=MICROSOFT, alpha=1.0)
        if spec.activation == "relu2":
            positive = graph.add("Relu", [x], f"{x}.relu")
            return graph.add("Mul", [positive, positive], y)
        return graph.add("Gelu", [x], y, approximate="tanh" if spec.activation == "gelu_tanh" else "none")

    def _scalar(self, value: float) -> str:
        return self._graph.numbers(f"scalar_{value!r}", np.array(value, np.float32))

    def _sizes(self, *sizes: int) -> str:
        return self._graph.constant(f"sizes_{'_'.join(map(str, sizes))}", np.array(sizes, np.int64))
