"""Mixtures of experts in the form that OpenVINO's plugins turn into products with the chosen experts alone.

    flat -> Tile over the experts -> Reshape -> MatMul with all gates and all ups -> activation -> MatMul with all downs
    -> Multiply by the routing weights, scattered into zeros -> ReduceSum

As it stands this multiplies every token by every expert. The plugins know it, from the tiling to the sum, by the form
that optimum-intel exports: OpenVINO 2026.4 on x86-64 puts one `GatherMatmulCompressed` in each product's place, which
reads the weights of a token's experts only. Elsewhere it computes what is written, which is the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import openvino as ov
from openvino import opset13 as op

from edgeq.checkpoint.integers import as_integers
from edgeq.checkpoint.pack import pack
from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.checkpoint.weights import Weight, Weights, dense
from edgeq.errors import EdgeqError
from edgeq.estimate.openvino_grids import expert_grid
from edgeq.exporters.folder import grid_of
from edgeq.exporters.openvino import packing
from edgeq.exporters.openvino.graph import (
    OPSET,
    Value,
    constant,
    integers,
    joined,
    named,
    number,
    out,
    reshape,
    size,
    swapped,
)
from edgeq.exporters.openvino.spool import Spool
from edgeq.exporters.openvino.storable import TYPE_BITS, layout
from edgeq.exporters.stacked import expert_of, in_turns, quantized_in_turns
from edgeq.model.spec import MoE
from edgeq.model.tensors import tensors
from edgeq.scheme import Grid


def check_experts(checkpoint: Weights) -> None:
    """Raise an EdgeqError naming the layer whose experts can't be stored in the form that the plugins know."""
    spec = checkpoint.spec
    grids = {t.name: grid_of(checkpoint, t) for t in tensors(spec) if t.expert}
    for i, layer in enumerate(spec.layers):
        if not isinstance(layer.ffn, MoE) or not layer.ffn.expert_bias:
            continue
        gate, up = (grids[f"layers.{i}.experts_{r}"] for r in ("gate", "up"))
        if gate != up:
            why = "gate and up are one matrix there, which needs one grid"
            raise EdgeqError(f"OpenVINO can't run the experts of layer {i}: {why}", where=spec.location or spec.name)


class ExpertNodes:
    """Emits the experts of layers."""

    def __init__(self, weights: Weights, spool: Spool) -> None:
        self._weights, self._spool = weights, spool
        self._hidden = weights.spec.hidden_size

    def routed(self, x: Value, layer: int, spec: MoE, grids: dict[str, Grid]) -> Value:
        """What the routed experts give for x (batch, tokens, hidden).

        Args:
            grids: role (`gate`, `up`, `down`) -> the grid its weights are on.
        """
        at = f"layers.{layer}."
        flat = reshape(x, -1, self._hidden)
        weights, chosen = self._routing(flat, f"{at}router", spec)
        tiled = out(op.tile(flat, integers(spec.experts, 1)))
        each = reshape(tiled, spec.experts, -1, self._hidden)
        inner = self._both(each, at, spec, grids) if spec.expert_bias else self._gated(each, at, spec, grids)
        y = _times(inner, self._matrix(at, ("down",), spec, grids))
        if spec.expert_bias:
            y = out(op.add(y, self._bias(at, ("down",))))
        batch = size(x, 0)
        shape = joined([integers(spec.experts), batch, integers(-1, self._hidden)], 0)
        y = out(op.reshape(y, shape, False))
        shares = self._shares(weights, chosen, flat, batch, spec)
        return out(op.reduce_sum(out(op.multiply(y, shares)), constant([0], np.int64), False))

    def gated(self, x: Value, y: Value, name: str) -> Value:
        """`y * sigmoid(x @ weight.T)`."""
        return out(op.multiply(y, out(op.sigmoid(_times(x, self._plain(name))))))

    def _routing(self, flat: Value, name: str, spec: MoE) -> tuple[Value, Value]:
        """Weights float32 and experts int32 of tokens: each (tokens, active)."""
        logits = _times(flat, self._plain(name))
        if spec.router_bias:
            logits = out(op.add(logits, self._plain(f"{name}_bias")))
        if spec.routing == "all":
            logits = out(op.softmax(logits, 1))
        top = op.topk(logits, constant(spec.active, np.int64), 1, "max", "value", "i32")
        largest = top.output(0)
        return (out(op.softmax(largest, 1)) if spec.routing == "top" else largest), top.output(1)

    def _shares(self, weights: Value, chosen: Value, flat: Value, batch: Value, spec: MoE) -> Value:
        """float32 (experts, batch, tokens, 1): what each token takes of each expert."""
        none = out(op.broadcast(number(0.0), joined([size(flat, 0), integers(spec.experts)], 0)))
        of_token = out(op.scatter_elements_update(none, chosen, weights, constant(1, np.int64)))
        shape = joined([integers(spec.experts), batch, integers(-1)], 0)
        of_expert = out(op.reshape(swapped(of_token, 1, 0), shape, False))
        return out(op.unsqueeze(of_expert, constant(-1, np.int64)))

    def _gated(self, x: Value, at: str, spec: MoE, grids: dict[str, Grid]) -> Value:
        """(experts, tokens, intermediate), gate and up by products of their own."""
        gate, up = (_times(x, self._matrix(at, (role,), spec, grids)) for role in ("gate", "up"))
        return _activated(gate, up, spec)

    def _both(self, x: Value, at: str, spec: MoE, grids: dict[str, Grid]) -> Value:
        """Likewise with biases: the plugins know these by one product, whose rows are of gate and up in turns."""
        y = _times(x, self._matrix(at, ("gate", "up"), spec, grids))
        y = out(op.add(y, self._bias(at, ("gate", "up"))))
        end, step, axis = integers(2 * spec.intermediate), integers(2), integers(2)
        gate, up = (out(op.slice(y, integers(first), end, step, axis)) for first in (0, 1))
        return _activated(gate, up, spec)

    def _matrix(self, at: str, roles: Sequence[str], spec: MoE, grids: dict[str, Grid]) -> Value:
        """float32 (experts, rows, columns) of one role, or of two whose rows are in turns."""
        names = [f"{at}experts_{role}" for role in roles]
        loaded = [_converted(self._weights.load(n), grids[r]) for n, r in zip(names, roles, strict=True)]
        quantized = [w for w in loaded if isinstance(w, QuantizedTensor)]
        if quantized:
            return named(self._compressed(quantized, spec.experts), "+".join(names))
        each = [dense(w) for w in loaded]
        kind = "f16" if grids[roles[0]].bits == 16 else "f32"
        shape = (spec.experts, sum(w.shape[1] for w in each), each[0].shape[2])
        parts = (in_turns(*(w[e] for w in each)) for e in range(spec.experts))
        data = self._spool.write(p.astype(_FLOATS[kind], copy=False) for p in parts)
        return named(_floats(self._spool.constant(kind, shape, data)), "+".join(names))

    def _compressed(self, weights: Sequence[QuantizedTensor], experts: int) -> Value:
        form = layout(weights[0].grid, weights[0].shape[1])
        rows = sum(w.shape[0] for w in weights) // experts
        inner = (form.columns,) if form.blocks == 1 else (form.blocks, form.block)
        single = (1,) if form.blocks == 1 else (form.blocks, 1)
        apart = ([expert_of(w, e, experts) for w in weights] for e in range(experts))
        each = [quantized_in_turns([w for w in of_one if isinstance(w, QuantizedTensor)]) for of_one in apart]
        data = self._spool.write(p for w in each for p in packing.codes(w, form))
        x = _floats(self._spool.constant(form.type, (experts, rows, *inner), data))
        if form.zeros:
            flat = np.concatenate([packing.zero_points(w, form) for w in each]).reshape(1, -1)
            zeros = self._spool.write([pack(flat, TYPE_BITS[form.type])])
            x = out(op.subtract(x, _floats(self._spool.constant(form.type, (experts, rows, *single), zeros))))
        scales = self._spool.write(packing.scales(w, form) for w in each)
        x = out(op.multiply(x, _floats(self._spool.constant(form.scale, (experts, rows, *single), scales))))
        return x if form.blocks == 1 else out(op.reshape(x, integers(experts, rows, form.columns), False))

    def _bias(self, at: str, roles: Sequence[str]) -> Value:
        """float32 (experts, 1, rows)."""
        names = [f"{at}experts_{role}_bias" for role in roles]
        values = np.stack([dense(self._weights.load(n)) for n in names], -1)
        return named(constant(values.reshape(len(values), 1, -1)), "+".join(names))

    def _plain(self, name: str) -> Value:
        return named(constant(dense(self._weights.load(name))), name)


_GELU = {"gelu": "erf", "gelu_tanh": "tanh"}
_FLOATS = {"f16": np.float16, "f32": np.float32}


def _activated(gate: Value, up: Value, spec: MoE) -> Value:
    """`act(gate) * up`, or `(up + 1) * gate * sigmoid(alpha * gate)` of what is held within the limit."""
    if spec.limit is not None:
        gate, up = out(op.minimum(gate, number(spec.limit))), out(op.clamp(up, -spec.limit, spec.limit))
        return out(op.multiply(out(op.add(up, number(1.0))), out(op.swish(gate, number(spec.alpha)))))
    if spec.activation == "silu":  # the Python function would add an input that the plugins' form has not
        return out(op.multiply(out(OPSET.create("Swish", [gate], {})), up))
    return out(op.multiply(out(op.gelu(gate, _GELU[spec.activation])), up))


def _converted(weight: Weight, grid: Grid) -> Weight:
    """On the grid that it is stored on."""
    if not isinstance(weight, QuantizedTensor):
        return weight
    stored = expert_grid(grid)
    assert stored is not None, "storable.check refuses it"
    return weight if stored == weight.grid else as_integers(weight, stored.bits)


def _floats(x: Value) -> Value:
    return x if x.get_element_type() == ov.Type.f32 else out(op.convert(x, "f32"))


def _times(x: Value, matrix: Value) -> Value:
    return out(op.matmul(x, matrix, False, True))
