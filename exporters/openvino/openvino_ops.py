"""The decoder emitted as an OpenVINO model with its key/value cache inside. A tensor is a value of the graph."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as op

from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.checkpoint.weights import Weight, Weights, activation_of, dense
from edgeq.decoder.ops import Ability
from edgeq.exporters.folder import grid_of
from edgeq.exporters.openvino.activations import rounded
from edgeq.exporters.openvino.attention import Cache, heads_first, heads_last
from edgeq.exporters.openvino.experts import ExpertNodes
from edgeq.exporters.openvino.graph import Value, constant, integers, named, number, out, size, split
from edgeq.exporters.openvino.matrices import Matrices
from edgeq.exporters.openvino.rope_nodes import RopeNodes
from edgeq.exporters.openvino.spool import Spool
from edgeq.exporters.openvino.storable import check
from edgeq.model.spec import MLP, Attention, ModelSpec, MoE
from edgeq.model.tensors import tensors
from edgeq.scheme import F32, Grid

ABLE: frozenset[Ability] = frozenset({"experts", "sinks"})
LOGITS_INPUT = "logits_input"  # name of the value that the head multiplies: a runtime may cut it to the last token


class OpenVinoOps:
    """`edgeq.decoder.ops.Ops` whose tensors are values of a graph.

    Inputs are those of optimum-intel and openvino-genai: `input_ids`, `attention_mask`, `position_ids` int64 and
    `beam_idx` int32; the output is `logits`, float32 (batch, tokens, vocab).

    Args:
        longest: the longest sequence to prepare for.
        done: called with the name of every matrix written.
    """

    able = ABLE

    def __init__(self, weights: Weights, spool: Spool, *, longest: int, done: Callable[[str], None]) -> None:
        self.spec: ModelSpec = weights.spec
        self._weights = weights
        self._done = done
        self._specs = {t.name: t for t in tensors(weights.spec)}
        self._matrices = Matrices(spool)
        self._experts = ExpertNodes(weights, spool)
        self._inputs = [
            _input("input_ids", ov.Type.i64, 2),
            _input("attention_mask", ov.Type.i64, 2),
            _input("position_ids", ov.Type.i64, 2),
            _input("beam_idx", ov.Type.i32, 1),
        ]
        self.ids, mask, positions, beams = (out(i) for i in self._inputs)
        total = size(mask, 1)
        self._cache = Cache(mask, beams, size(self.ids, 1), total)
        self._rope = RopeNodes(weights.spec, positions, total, longest)

    def embed(self, ids: Value) -> Value:
        y = self._matrices.rows(ids, "embed", *self._load("embed"))
        self._done("embed")
        return y

    def scale(self, x: Value, factor: float) -> Value:
        return out(op.multiply(x, number(factor)))

    def add(self, x: Value, y: Value) -> Value:
        return out(op.add(x, y))

    def norm(self, x: Value, name: str) -> Value:
        squares = out(op.reduce_mean(out(op.power(x, number(2.0))), integers(-1), True))
        root = out(op.sqrt(out(op.add(squares, number(self.spec.norm_eps)))))
        normed = out(op.multiply(x, out(op.divide(number(1.0), root))))
        weight = dense(self._weights.load(name)) + np.float32(self.spec.norm_offset)
        return out(op.multiply(normed, named(constant(weight), name)))

    def add_norm(self, x: Value, delta: Value, name: str) -> tuple[Value, Value]:
        total = self.add(x, delta)
        return self.norm(total, name), total

    def linear(self, x: Value, names: tuple[str, ...]) -> Value:
        grid = activation_of(self._weights, names[0])  # matrices that share an input share its grid
        if grid is not None:
            x = rounded(x, grid)
        y = self._matrices.product(x, names, [self._load(n) for n in names])
        self._done("+".join(names))
        biases = [f"{n}_bias" for n in names]
        if not any(b in self._specs for b in biases):
            return y
        values = np.concatenate([self._bias(n) for n in names])
        return out(op.add(y, named(constant(values), "+".join(biases))))

    def attention(self, qkv: Value, layer: int, spec: Attention) -> Value:
        at, kv = f"layers.{layer}", spec.kv_heads * spec.head_dim
        q, k, v = split(qkv, 2, (spec.heads * spec.head_dim, kv, kv))
        if spec.qk_norm == "full":
            q, k = self.norm(q, f"{at}.q_norm"), self.norm(k, f"{at}.k_norm")
        q, k, v = (heads_first(t, spec.head_dim) for t in (q, k, v))
        if spec.qk_norm == "head":
            q, k = self.norm(q, f"{at}.q_norm"), self.norm(k, f"{at}.k_norm")
        if spec.rope is not None:
            q, k = self._rope.rotate(q, spec.rope), self._rope.rotate(k, spec.rope)
        keys = self._cache.extended(layer, "key", k, spec)
        values = self._cache.extended(layer, "value", v, spec)
        sinks = named(constant(dense(self._weights.load(f"{at}.sinks"))), f"{at}.sinks") if spec.sinks else None
        return heads_last(self._cache.attend(q, keys, values, spec, sinks), spec.heads * spec.head_dim)

    def activate(self, x: Value, spec: MLP) -> Value:
        if not spec.gated:
            return _activation(x, spec)
        gate, up = split(x, 2, (spec.intermediate, spec.intermediate))
        return out(op.multiply(_activation(gate, spec), up))

    def moe(self, x: Value, layer: int, spec: MoE) -> Value:
        at = f"layers.{layer}.experts_"
        grids = {role: grid_of(self._weights, self._specs[at + role]) for role in ("gate", "up", "down")}
        y = self._experts.routed(x, layer, spec, grids)
        self._done(f"layers.{layer}.experts")
        return y

    def weigh(self, x: Value, y: Value, name: str) -> Value:
        return self._experts.gated(x, y, name)

    def logits(self, x: Value, scale: float, softcap: float | None) -> Value:
        y = self._head(named(x, LOGITS_INPUT))
        if softcap is not None:
            return self.scale(out(op.tanh(self.scale(y, scale / softcap))), softcap)
        return y if scale == 1.0 else self.scale(y, scale)

    def model(self, logits: Value) -> ov.Model:
        result = op.result(logits)
        result.output(0).get_tensor().set_names({"logits"})
        result.set_friendly_name("logits")
        cache = self._cache
        return ov.Model([result], cache.sinks, self._inputs, cache.variables, self.spec.family)

    def _head(self, x: Value) -> Value:
        if self.spec.tied:
            y = self._matrices.tied_product(x, "embed")
        else:
            y = self._matrices.product(x, ["head"], [self._load("head")])
            self._done("head")
        if not self.spec.head_bias:
            return y
        return out(op.add(y, named(constant(dense(self._weights.load("head_bias"))), "head_bias")))

    def _load(self, name: str) -> tuple[Weight, Grid]:
        weight = self._weights.load(name)
        planned = grid_of(self._weights, self._specs[name])
        grid = weight.grid if isinstance(weight, QuantizedTensor) else planned if planned.kind == "float" else F32
        check(grid, weight.shape[1], name)
        return weight, grid

    def _bias(self, name: str) -> npt.NDArray[np.float32]:
        """A matrix without bias adds zeros where its neighbours have one."""
        if f"{name}_bias" in self._specs:
            return dense(self._weights.load(f"{name}_bias"))
        return np.zeros(self._specs[name].shape[0], np.float32)


def _input(name: str, kind: ov.Type, rank: int) -> ov.Node:
    node = op.parameter([-1] * rank, kind)
    node.set_friendly_name(name)
    node.output(0).get_tensor().set_names({name})
    return node


def _activation(x: Value, spec: MLP) -> Value:
    if spec.activation == "silu":
        return out(op.swish(x))
    if spec.activation == "relu2":
        positive = out(op.relu(x))
        return out(op.multiply(positive, positive))
    return out(op.gelu(x, "tanh" if spec.activation == "gelu_tanh" else "erf"))
