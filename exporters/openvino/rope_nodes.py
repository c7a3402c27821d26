"""Rotary embedding: cosine and sine computed from the position ids, for as many positions as are asked for."""

from __future__ import annotations

import numpy as np
from openvino import opset13 as op

from edgeq.decoder import rope as rotary
from edgeq.exporters.openvino.graph import Value, constant, joined, named, out, split
from edgeq.model.spec import ModelSpec, Rope

SWITCH = "rope_switch"  # name of the constant: sequences longer than this turn by the long set of frequencies


class RopeNodes:
    """Layers that turn alike share their tables.

    Args:
        position_ids: int64 (batch, tokens).
        total: int64 [1], tokens of the sequence so far and of this call.
        longest: the longest sequence that can be run.
    """

    def __init__(self, spec: ModelSpec, position_ids: Value, total: Value, longest: int) -> None:
        self._spec = spec
        self._positions = position_ids
        self._total = total
        self._longest = longest
        self._known: dict[Rope, tuple[Value, Value]] = {}

    def rotate(self, x: Value, rope: Rope) -> Value:
        """(batch, heads, tokens, head_dim) with the first `rope.dim` dimensions turned, half against half."""
        width = int(x.get_partial_shape()[3].get_length())
        if rope.dim == width:
            return self._turn(x, rope)
        turned, rest = split(x, 3, (rope.dim, width - rope.dim))
        return joined([self._turn(turned, rope), rest], -1)

    def _turn(self, x: Value, rope: Rope) -> Value:
        cos, sin = self._tables(rope)
        first, second = split(x, 3, (rope.dim // 2, rope.dim // 2))
        back = joined([out(op.multiply(second, constant(-1.0, np.float32))), first], -1)
        return out(op.add(out(op.multiply(x, cos)), out(op.multiply(back, sin))))

    def _tables(self, rope: Rope) -> tuple[Value, Value]:
        """Cosine and sine (batch, 1, tokens, dim)."""
        if rope not in self._known:
            inverse, factor = self._frequencies(rope)
            positions = out(op.unsqueeze(out(op.convert(self._positions, "f32")), constant([1], np.int64)))
            angles = out(op.transpose(out(op.matmul(inverse, positions, False, False)), constant([0, 2, 1], np.int64)))
            both = joined([angles, angles], -1)
            found = [self._scaled(out(f(both)), factor) for f in (op.cos, op.sin)]
            self._known[rope] = (found[0], found[1])
        return self._known[rope]

    def _scaled(self, table: Value, factor: Value | None) -> Value:
        wide = table if factor is None else out(op.multiply(table, factor))
        return out(op.unsqueeze(wide, constant([1], np.int64)))

    def _frequencies(self, rope: Rope) -> tuple[Value, Value | None]:
        """Inverse frequencies (1, dim / 2, 1) and what multiplies cosine and sine; None: nothing."""
        known = self._spec.max_positions
        switch = rotary.switch_length(rope, known)
        short = rotary.frequencies(rope, known)
        plain = constant(short.inverse[None, :, None])
        factor = constant(short.attention_factor, np.float32) if short.attention_factor != 1.0 else None
        if switch is None or switch >= self._longest:
            return plain, factor
        long = rotary.frequencies(rope, known, self._longest)
        limit = named(constant([switch], np.int64), SWITCH)
        extended = out(op.greater(self._total, limit))
        chosen = out(op.select(extended, constant(long.inverse[None, :, None]), plain))
        factors = [constant(f.attention_factor, np.float32) for f in (long, short)]
        return chosen, out(op.select(extended, *factors))
