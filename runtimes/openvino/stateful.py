"""The key/value cache as the model's own state: every device has it, and any form of attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino as ov

from edgeq.runtimes.openvino.engine import OpenVinoEngine, Row, shared


class StatefulEngine(OpenVinoEngine):
    """Keys and values grow inside of the request, at every token by one."""

    token_shape = (1, -1)

    def __init__(self, compiled: ov.CompiledModel, vocab_size: int, *, context: int, **rest: Any) -> None:
        super().__init__(compiled, vocab_size, context=context, **rest)
        self._fed: list[int] = []
        self._trims = _can_trim(compiled)
        self._mask = np.ones((1, context), np.int64)
        self._request.set_tensor("beam_idx", ov.Tensor(np.zeros(1, np.int32)))

    def rewind(self, position: int) -> None:
        if not 0 <= position <= self._position:
            raise ValueError(f"cannot rewind to {position}, the cache holds {self._position} tokens")
        if position == self._position == len(self._fed):  # an interrupt (Ctrl-C) may have left the two apart
            return
        if position == 0 or not self._trims:
            self._open().reset_state()
            again, self._position, self._fed = self._fed[:position], 0, []
            for at in range(0, position, self.chunk):
                self.prefill(again[at : at + self.chunk])
            return
        for state in self._open().query_state():
            state.state = ov.Tensor(np.ascontiguousarray(state.state.data[:, :, :position]))
        self._position, self._fed = position, self._fed[:position]

    def _bind(self, request: Any, count: int) -> None:
        request.set_tensor("attention_mask", shared(self._mask[:, : self._position + count]))

    def _run(self, ids: Sequence[int], tokens: ov.Tensor, places: ov.Tensor) -> Row:
        rows = super()._run(ids, tokens, places)
        self._fed.extend(ids)
        return rows


def _can_trim(compiled: ov.CompiledModel) -> bool:
    """Whether the cache may be set to a part of itself.

    A 4-bit one may not: OpenVINO 2026.4 writes beyond its memory then. Its tokens are fed again instead.
    """
    try:
        kept: Any = compiled.get_property("KV_CACHE_PRECISION")
    except RuntimeError:  # a plugin without that choice
        return True
    return str(kept.get_type_name()) != "u4"
