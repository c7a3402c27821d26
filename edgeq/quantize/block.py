"""Block: one layer of the model in memory, the only one that is, and the means to run it on the calibration text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch

from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.model.spec import ModelSpec
from edgeq.quantize.statistics import InputStatistics
from edgeq.scheme import Grid

Tensor = torch.Tensor
Hook = Callable[[tuple[str, ...], Tensor], None]  # (names of the linear layers, the input they share)


@dataclass(slots=True)
class Block:
    """Layer `index`.

    Attributes:
        original: the float tensors as the source gives them, by canonical name (`layers.3.q`), never changed.
        current: the float tensors as transforms left them: what is to be quantized. Norms and biases included.
        grids: the grid of every matrix that is to be quantized.
        quantized: what has been quantized so far.
        groups: names of linear layers that share an input, in the order they run: (q, k, v), (o,), (gate, up), (down,).
    """

    spec: ModelSpec
    index: int
    original: dict[str, Tensor]
    current: dict[str, Tensor]
    grids: dict[str, Grid]
    groups: tuple[tuple[str, ...], ...]
    quantized: dict[str, QuantizedTensor] = field(default_factory=dict)
    # Set by the engine:
    batches: Callable[[], Iterator[Tensor]] | None = None  # inputs of the quantized stream, (sequences, tokens, hidden)
    targets: Callable[[], Iterator[Tensor]] | None = None  # outputs of the float block on the float stream, alike
    statistics_of: Callable[[tuple[str, ...]], InputStatistics] | None = None  # of a group's input, gathered on demand
