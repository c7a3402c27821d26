"""Sequences on a graph in standard operators: its caches grow, and it is told the positions of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.runtimes.onnxruntime.engine import OnnxEngine, bind_input
from edgeq.runtimes.onnxruntime.graph import Cache


class GrowingEngine(OnnxEngine):
    """Past and present of each layer are two buffers that change places at each step: the operator appends by copying.

    Both have room for `capacity` tokens; what is bound is their beginning, as long as the sequence is.
    """

    _pairs: dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]]  # of each past input: the tokens so far, and a spare

    def _grow(self, capacity: int) -> None:
        pairs = getattr(self, "_pairs", {})
        self._pairs = {}
        for cache in self.graph.caches:
            fresh = [np.zeros(cache.kv_heads * capacity * cache.width, cache.dtype) for _ in range(2)]
            if cache.past in pairs:
                used = cache.kv_heads * self._position * cache.width
                fresh[0][:used] = pairs.pop(cache.past)[0][:used]
            self._pairs[cache.past] = (fresh[0], fresh[1])
        self._capacity = capacity

    def _bind_fixed(self) -> None:
        super()._bind_fixed()
        self._place = np.zeros((1, 1), np.int64)
        bind_input(self._one, "position_ids", self._place, (1, 1))

    def _run(self, binding: Any) -> None:
        tokens = 1 if binding is self._one else self._tokens
        begin, end = self._position, self._position + tokens
        if binding is self._one:
            self._place[0, 0] = begin
        else:
            self._places = np.arange(begin, end)[None]
            bind_input(binding, "position_ids", self._places, (1, tokens))
        for cache in self.graph.caches:
            past, present = self._pairs[cache.past]
            shapes = [(1, cache.kv_heads, n, cache.width) for n in (begin, end)]
            bind_input(binding, cache.past, past, shapes[0])
            binding.bind_output(cache.present, "cpu", 0, cache.dtype, shapes[1], present.ctypes.data)
        super()._run(binding)
        self._pairs = {name: (present, past) for name, (past, present) in self._pairs.items()}

    def _forward(self, ids: Sequence[int], rows: npt.NDArray[Any]) -> None:
        self._tokens = len(ids)
        super()._forward(ids, rows)

    def rewind(self, position: int) -> None:
        before = self._position
        super().rewind(position)
        if position < before:
            for cache in self.graph.caches:
                self._cut(cache, before, position)

    def _cut(self, cache: Cache, before: int, position: int) -> None:
        """Keep the first tokens of every head: they lie one after the other, as many as there are."""
        past, spare = self._pairs[cache.past]
        shapes = [(cache.kv_heads, n, cache.width) for n in (before, position)]
        sizes = [int(np.prod(shape)) for shape in shapes]
        spare[: sizes[1]].reshape(shapes[1])[:] = past[: sizes[0]].reshape(shapes[0])[:, :position]
        self._pairs[cache.past] = (spare, past)

    def close(self) -> None:
        super().close()
        self._pairs = {}
