"""Logits of many sequences from a model that memory does not hold: layer after layer, all sequences through each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from edgeq.checkpoint.weights import Weights
from edgeq.decoder.decoder import Stream, block, check_supported, embedding, head, settled
from edgeq.decoder.torch_ops import ABLE, TorchOps, as_ids


def layerwise_logits(
    weights: Weights, sequences: Sequence[Sequence[int]], tick: Callable[[float], None]
) -> Iterator[npt.NDArray[np.float32]]:
    """float32 (tokens, vocab) of each sequence, the same as one pass after another gives.

    Memory: one layer and the head in float32, and each sequence's hidden states (tokens x width). Every weight is read
    once.

    Args:
        tick: told how many sequences' worth of work is done; a layer counts its share of all sequences.
    """
    spec = weights.spec
    check_supported(spec, ABLE)
    share = len(sequences) / (spec.n_layers + 1)
    with torch.inference_mode():
        ops = TorchOps(weights, keep=True)
        streams = [embedding(ops, spec, as_ids(ids)) for ids in sequences]
        for i in range(spec.n_layers):
            ops = TorchOps(weights, keep=True)  # a new one: it has nothing of the layers before
            streams = [Stream(settled(ops, block(ops, spec, i, stream))) for stream in streams]
            tick(share)
        ops = TorchOps(weights, keep=True)
        for at in range(len(streams)):
            found: npt.NDArray[np.float32] = head(ops, spec, streams[at])[0].numpy()
            tick(share / len(streams))
            yield found
