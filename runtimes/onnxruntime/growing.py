"""Sequences on a graph in standard operators: its caches grow, and it is told the positions of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from onnxruntime.capi._pybind_state import OrtDevice

from edgeq.runtimes.onnxruntime.engine import OnnxEngine, bind_input
from edgeq.runtimes.onnxruntime.graph import Cache

Flat = npt.NDArray[Any]
_CPU = OrtDevice(OrtDevice.cpu(), OrtDevice.default_memory(), 0)


@dataclass(frozen=True, slots=True)
class _Pair:
    """The two buffers of a cache, and where they lie."""

    cache: Cache
    buffers: tuple[Flat, Flat]
    addresses: tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Held:
    """How many tokens the buffers hold, and which of each pair (0 or 1) holds them. One object, so that an interrupt
    (Ctrl-C) between two statements leaves all as it belongs together."""

    tokens: int = 0
    past: int = 0
    pairs: tuple[_Pair, ...] = ()


class GrowingEngine(OnnxEngine):
    """Past and present of each layer are two buffers that change places at each step: the operator appends by copying.

    Both have room for `capacity` tokens; what is bound is their beginning, [1, kv_heads, tokens, width].
    """

    _held = _Held()

    def _grow(self, capacity: int) -> None:
        held, pairs = self._held, []
        for at, cache in enumerate(self.graph.caches):
            first, spare = (np.zeros(cache.kv_heads * capacity * cache.width, cache.dtype) for _ in range(2))
            if held.pairs:
                used = cache.kv_heads * held.tokens * cache.width
                first[:used] = held.pairs[at].buffers[held.past][:used]
            pairs.append(_Pair(cache, (first, spare), (first.ctypes.data, spare.ctypes.data)))
        self._held = _Held(held.tokens, 0, tuple(pairs))
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
        if self._held.tokens != begin:
            self._cut(begin)
        if binding is self._one:
            end = begin + 1
            self._place[0, 0] = begin
        else:
            end = begin + self._tokens
            self._places = np.arange(begin, end)[None]
            bind_input(binding, "position_ids", self._places, (1, self._tokens))
        held = self._held
        now, then = held.past, 1 - held.past
        # onnxruntime's own wrappers of these calls take four times as long, which shows at 60 caches a token.
        bind = binding._iobinding
        for pair in held.pairs:
            cache, addresses = pair.cache, pair.addresses
            heads, width = cache.kv_heads, cache.width
            bind.bind_input(cache.past, _CPU, cache.dtype, (1, heads, begin, width), addresses[now])
            bind.bind_output(cache.present, _CPU, cache.dtype, (1, heads, end, width), addresses[then])
        super()._run(binding)
        self._held = _Held(end, then, held.pairs)

    def _cut(self, position: int) -> None:
        """Keep the first tokens of every head, which lie head after head."""
        held = self._held
        for pair in held.pairs:
            cache = pair.cache
            before, after = ((cache.kv_heads, n, cache.width) for n in (held.tokens, position))
            old = pair.buffers[held.past][: int(np.prod(before))].reshape(before)
            new = pair.buffers[1 - held.past][: int(np.prod(after))].reshape(after)
            new[:] = old[:, :position]
        self._held = replace(held, tokens=position, past=1 - held.past)

    def close(self) -> None:
        super().close()
        self._held = _Held()
