"""TorchModel: token ids to logits by the torch backend, in one pass or step by step with a cache."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import psutil
import torch

from edgeq.checkpoint.weights import Weights
from edgeq.decoder.decoder import check_supported, decoder
from edgeq.decoder.torch_ops import ABLE, KeyValueCache, TorchOps, as_ids
from edgeq.errors import EdgeqError
from edgeq.model.tensors import parameters


class TorchModel:
    """The reference model.

    Args:
        weights: a source model or a neutral checkpoint; quantized tensors are dequantized as they are used.
        dtype: compute dtype, float32 unless said otherwise.
        keep: hold the weights in memory between calls; None: when they fit in half of what is free. Otherwise
            every pass reads them again, one tensor at a time.
        device: `cpu`, or `cuda` for an NVIDIA GPU, which always keeps them.

    Raises:
        EdgeqError: an architecture the decoder can't run.
    """

    def __init__(
        self,
        weights: Weights,
        *,
        dtype: torch.dtype = torch.float32,
        keep: bool | None = None,
        device: str = "cpu",
    ) -> None:
        check_supported(weights.spec, ABLE)
        self.spec = weights.spec
        if keep is None:
            keep = device != "cpu" or parameters(weights.spec) * dtype.itemsize < psutil.virtual_memory().available / 2
        self._ops = TorchOps(weights, dtype=dtype, keep=keep, device=device)

    def logits(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """float32 (len(ids), vocab): the logits after each token of a fresh sequence."""
        self._ops.cache = None
        return self._run(ids)

    def start(self) -> KeyValueCache:
        """An empty cache for `step`."""
        return KeyValueCache()

    def step(self, ids: Sequence[int], cache: KeyValueCache) -> npt.NDArray[np.float32]:
        """float32 (len(ids), vocab) for tokens that follow those in `cache`, which is extended by them."""
        self._ops.cache = cache
        out = self._run(ids)
        cache.length += len(ids)
        return out

    def _run(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        if not len(ids):
            raise EdgeqError("no tokens to run")
        if min(ids) < 0 or max(ids) >= self.spec.vocab_size:
            raise EdgeqError(f"token ids must lie in 0..{self.spec.vocab_size - 1}")
        with torch.inference_mode():
            out: npt.NDArray[np.float32] = (
                decoder(self._ops, self.spec, as_ids(ids).to(self._ops.device))[0].cpu().numpy()
            )
        return out
