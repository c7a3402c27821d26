"""The reference decoder behind the generation loop's `Engine`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from edgeq.decoder.torch_model import TorchModel

_CHUNK = 512  # tokens of one pass: their scores in float32 are the largest activation


class TorchEngine:
    """One sequence on one model. Follows `edgeq.runtimes.generation.Engine`."""

    def __init__(self, model: TorchModel, context: int) -> None:
        self.context = context
        self.chunk = min(_CHUNK, context)
        self.threads = torch.get_num_threads()
        self._model = model
        self._cache = model.start()

    @property
    def position(self) -> int:
        return self._cache.length

    def prefill(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        last: npt.NDArray[np.float32] = self.logits(ids)[-1]
        return last

    def decode(self, token: int) -> npt.NDArray[np.float32]:
        return self.prefill([token])

    def rewind(self, position: int) -> None:
        if not 0 <= position <= self.position:
            raise ValueError(f"cannot rewind to {position}, the cache holds {self.position} tokens")
        self._cache.rewind(position)

    def logits(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        return self._model.step(ids, self._cache)

    def close(self) -> None:
        self._cache.rewind(0)
