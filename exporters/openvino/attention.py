"""Attention over a cache that is the model's state."""

from __future__ import annotations

import numpy as np
import openvino as ov
from openvino import opset13 as op
from openvino.op import util as op_util

from edgeq.exporters.openvino.graph import (
    OPSET,
    Value,
    constant,
    integers,
    joined,
    number,
    out,
    reshape,
    scalar,
    size,
    steps,
    swapped,
)
from edgeq.model.spec import Attention

_HIDDEN = -65504.0  # what is added to the score of a key that must not be seen: float16's lowest number


class Cache:
    """Keys and values as variables of the model, and the masks over them.

    The variables are named as optimum-intel names them, so that openvino-genai finds them.

    Args:
        mask: int64 (batch, total), 0 at padding.
        beams: int32 (batch), which sequence each continues.
        tokens, total: int64 [1], of this call, and of the sequence with them.
    """

    def __init__(self, mask: Value, beams: Value, tokens: Value, total: Value) -> None:
        self.sinks: list[ov.Node] = []
        self.variables: list[op_util.Variable] = []
        self._mask = mask
        self._beams = beams
        self._tokens = tokens
        self._total = total
        self._masks: dict[int | None, Value] = {}

    def extended(self, layer: int, part: str, new: Value, spec: Attention) -> Value:
        """(batch, kv_heads, total, head_dim): what is cached and `new` behind it; it becomes the next call's cache."""
        shape = [-1, spec.kv_heads, -1, spec.head_dim]
        name = f"past_key_values.{layer}.{part}present.{layer}.{part}"
        info = op_util.VariableInfo()
        info.data_shape, info.data_type, info.variable_id = ov.PartialShape(shape), ov.Type.f32, name
        variable = op_util.Variable(info)
        start = joined([size(self._beams, 0), integers(spec.kv_heads, 0, spec.head_dim)], 0)
        empty = out(op.broadcast(number(0.0), start))
        past = out(op.gather(out(op.read_value(empty, variable)), self._beams, constant(0, np.int64)))
        whole = joined([past, new], 2)
        self.sinks.append(op.assign(whole.get_node(), variable))
        self.variables.append(variable)
        return whole

    def attend(self, q: Value, k: Value, v: Value, spec: Attention, sinks: Value | None = None) -> Value:
        """(batch, heads, tokens, head_dim) of q, and k and v (batch, kv_heads, total, head_dim); sinks (heads,)."""
        keys, values = (self._repeated(t, spec) for t in (k, v))
        mask = self._hiding(spec.window)
        if sinks is not None:
            inputs = [q, keys, values, mask, number(spec.scale), reshape(sinks, 1, spec.heads, 1, 1)]
            # The Python function does not name this input.
            return out(OPSET.create("ScaledDotProductAttention", inputs, {"causal": False}))
        if spec.softcap is None:
            return out(op.scaled_dot_product_attention(q, keys, values, mask, number(spec.scale)))
        scores = out(op.multiply(out(op.matmul(q, keys, False, True)), number(spec.scale / spec.softcap)))
        capped = out(op.multiply(out(op.tanh(scores)), number(spec.softcap)))
        return out(op.matmul(out(op.softmax(out(op.add(capped, mask)), 3)), values, False, False))

    def _repeated(self, x: Value, spec: Attention) -> Value:
        """Each key/value head for all query heads that share it."""
        group = spec.heads // spec.kv_heads
        if group == 1:
            return x
        apart = out(op.unsqueeze(x, integers(2)))
        wide = out(op.broadcast(apart, integers(1, 1, group, 1, 1), broadcast_spec="BIDIRECTIONAL"))
        return reshape(wide, 0, spec.heads, -1, spec.head_dim)

    def _hiding(self, window: int | None) -> Value:
        """float32 (batch, 1, tokens, total): 0 where a key is seen, else `_HIDDEN`."""
        if window not in self._masks:
            total, tokens = scalar(self._total), scalar(self._tokens)
            keys = steps(constant(0, np.int64), total)
            queries = out(op.unsqueeze(steps(out(op.subtract(total, tokens)), total), integers(1)))
            past = out(op.less_equal(keys, queries))
            real = out(op.unsqueeze(out(op.convert(self._mask, "boolean")), integers(1, 2)))
            if window is None:
                self._masks[window] = _scores(out(op.logical_and(real, past)))
            else:
                recent = out(op.greater(keys, out(op.add(queries, constant(-window, np.int64)))))
                self._masks[window] = self._windowed(recent, past, real)
        return self._masks[window]

    def _windowed(self, recent: Value, past: Value, real: Value) -> Value:
        """The mask of a sliding window, in the form that gpt-oss has in optimum-intel.

        openvino-genai replaces attention by its paged kind, which takes no mask, and knows a window by this form only:
        in any other it would see all keys, without a word. Hence conjunctions with what is true, and a slice of all.
        """
        true = constant(True)
        seen = recent
        for before, after in ((true, None), (None, past), (true, None), (None, real)):
            seen = out(op.bitwise_and(*(x for x in (before, seen, after) if x is not None)))
        batch = size(self._mask, 0)
        wide = out(op.broadcast(seen, joined([batch, integers(1), self._tokens, self._total], 0)))
        return out(op.slice(_scores(wide), integers(0), self._total, integers(1), integers(3)))


def _scores(seen: Value) -> Value:
    """What is added to the scores."""
    return out(op.select(seen, number(0.0), number(_HIDDEN)))


def heads_first(x: Value, width: int) -> Value:
    """(batch, tokens, heads * width) to (batch, heads, tokens, width)."""
    return swapped(reshape(x, 0, 0, -1, width), 0, 2, 1, 3)


def heads_last(x: Value, width: int) -> Value:
    """(batch, heads, tokens, head_dim) to (batch, tokens, width), all heads side by side."""
    return reshape(swapped(x, 0, 2, 1, 3), 0, 0, width)
