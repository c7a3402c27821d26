"""The key/value cache in blocks that the session keeps, read by PagedAttention, as openvino-genai runs these models.

Faster than attention over the model's state, the more so the longer the sequence: nothing is copied as it grows, and
a prompt's scores are never written out. The inputs are those of
https://github.com/openvinotoolkit/openvino.genai/blob/master/src/cpp/src/continuous_batching/model_runner.hpp
for one sequence whose blocks lie in order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov

from edgeq.runtimes.openvino.engine import OpenVinoEngine, shared

_CACHES = ("key_cache.", "value_cache.")


class PagedEngine(OpenVinoEngine):
    """Going back to an earlier token is free: later ones are written over."""

    token_shape = (-1,)

    def __init__(self, compiled: ov.CompiledModel, vocab_size: int, *, context: int, **rest: Any) -> None:
        super().__init__(compiled, vocab_size, context=context, **rest)
        caches = {i.get_any_name(): i for i in compiled.inputs if i.get_any_name().startswith(_CACHES)}
        self._block = int(caches["value_cache.0"].get_partial_shape()[2].get_length())
        self._blocks = np.arange(-(-context // self._block), dtype=np.int32)
        self._bound = 0  # blocks that the request knows of
        self._past = np.zeros(1, np.int32)
        self._begins, self._block_begins = (np.zeros(2, np.int32) for _ in range(2))
        self._total = ov.Tensor(ov.Type.i32, ov.Shape([]))
        self._memory = {name: _memory(port, len(self._blocks)) for name, port in caches.items()}
        for name, (_, tensor) in self._memory.items():
            self._request.set_tensor(name, tensor)
        self._request.set_tensor("past_lens", shared(self._past))
        self._request.set_tensor("subsequence_begins", shared(self._begins))
        self._request.set_tensor("block_indices_begins", shared(self._block_begins))
        self._request.set_tensor("max_context_len", self._total)

    def rewind(self, position: int) -> None:
        if not 0 <= position <= self._position:
            raise ValueError(f"cannot rewind to {position}, the cache holds {self._position} tokens")
        self._position = position

    def close(self) -> None:
        super().close()
        self._memory.clear()

    def _bind(self, request: Any, count: int) -> None:
        end = self._position + count
        blocks = -(-end // self._block)
        self._past[0], self._begins[1], self._block_begins[1] = self._position, count, blocks
        self._total.data[...] = end
        if blocks != self._bound:
            request.set_tensor("block_indices", shared(self._blocks[:blocks]))
            self._bound = blocks


def _memory(port: Any, blocks: int) -> tuple[npt.NDArray[np.uint8], ov.Tensor]:
    """Room for all blocks of one cache. The system hands out a page of it when it is first written to."""
    kind = port.get_element_type()
    shape = [blocks, *(int(d.get_length()) for d in list(port.get_partial_shape())[1:])]
    room = np.zeros(int(np.prod(shape)) * kind.bitwidth // 8, np.uint8)
    return room, ov.Tensor(room, ov.Shape(shape), kind)
