"""Sequences on a graph in standard operators: its caches grow, and it is told the positions of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.runtimes.onnxruntime.engine import OnnxEngine, bind_input

Flat = npt.NDArray[Any]


class GrowingEngine(OnnxEngine):
    """Past and present of each layer are two buffers that change places at each step: the operator appends by copying.

    Both have room for `capacity` tokens; what is bound is their beginning, [1, kv_heads, tokens, width].
    """

    # How many tokens the buffers hold, and of each past input the buffer that holds them, and a spare. One object, so
    # that an interrupt (Ctrl-C) between two statements leaves both as they belong together.
    _held: tuple[int, dict[str, tuple[Flat, Flat]]] = (0, {})

    def _grow(self, capacity: int) -> None:
        held, pairs = self._held
        larger = {}
        for cache in self.graph.caches:
            first, spare = (np.zeros(cache.kv_heads * capacity * cache.width, cache.dtype) for _ in range(2))
            if cache.past in pairs:
                used = cache.kv_heads * held * cache.width
                first[:used] = pairs[cache.past][0][:used]
            larger[cache.past] = (first, spare)
        self._held = held, larger
        self._capacity = capacity

    def _bind_fixed(self) -> None:
        super()._bind_fixed()
        self._place = np.zeros((1, 1), np.int64)
        bind_input(self._one, "position_ids", self._place, (1, 1))

    def _forward(self, ids: Sequence[int], rows: npt.NDArray[Any]) -> None:
        self._tokens = len(ids)
        super()._forward(ids, rows)

    def _run(self, binding: Any) -> None:
        begin = self._position
        if self._held[0] != begin:
            self._cut(begin)
        if binding is self._one:
            end = begin + 1
            self._place[0, 0] = begin
        else:
            end = begin + self._tokens
            self._places = np.arange(begin, end)[None]
            bind_input(binding, "position_ids", self._places, (1, self._tokens))
        for cache in self.graph.caches:
            past, present = self._held[1][cache.past]
            bind_input(binding, cache.past, past, (1, cache.kv_heads, begin, cache.width))
            shape = (1, cache.kv_heads, end, cache.width)
            binding.bind_output(cache.present, "cpu", 0, cache.dtype, shape, present.ctypes.data)
        super()._run(binding)
        self._held = end, {name: (present, past) for name, (past, present) in self._held[1].items()}

    def _cut(self, position: int) -> None:
        """Keep the first tokens of every head, which lie head after head."""
        held, pairs = self._held
        kept = {}
        for cache in self.graph.caches:
            past, spare = pairs[cache.past]
            before, after = ((cache.kv_heads, n, cache.width) for n in (held, position))
            old = past[: int(np.prod(before))].reshape(before)
            spare[: int(np.prod(after))].reshape(after)[:] = old[:, :position]
            kept[cache.past] = (spare, past)
        self._held = position, kept

    def close(self) -> None:
        super().close()
        self._held = 0, {}
