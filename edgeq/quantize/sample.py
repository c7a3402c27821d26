"""A sample of what linear layers read: few tokens that stand for all, the extreme ones each for itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from edgeq.quantize.block import Block
from edgeq.quantize.run_block import BlockRunner

Tensor = torch.Tensor

EVERY = 64  # of the ordinary tokens of a batch, one is taken
EXTREME = 8  # of a batch: a text's first token can carry activations a thousand times the usual


@dataclass(frozen=True, slots=True)
class InputSample:
    """Attributes:
    x: float32 (tokens, K).
    weight: float64 (tokens,): how many tokens of the text each one stands for.
    share: float64 (tokens,): likewise, each token weighed against what it makes the layers put out: a first token
        that puts out ten thousand times the usual must not hide what happens to all others.
    low, high: float32 (K,): range of each channel over all of the text, zero inside.
    power: float32 (K,): mean square of each channel over all of the text.
    """

    x: Tensor
    weight: Tensor
    share: Tensor
    low: Tensor
    high: Tensor
    power: Tensor

    def mean(self, per_token: Tensor, *, shared: bool = False) -> float:
        """The text's mean of a value that x's tokens have, (tokens,); `shared`: weighed as in `share`."""
        weight = self.share if shared else self.weight
        return float((per_token.double() * weight).sum() / weight.sum())


def sample_of(batches: Iterable[Tensor], gain: Tensor) -> InputSample:
    """Of each batch (tokens, K) the tokens with the largest values, and some of the others at even distances.

    Args:
        gain: (K,): sum of the squares of the weights that read each channel.

    Raises:
        ValueError: there is no token.
    """
    rows, weights, shares = [], [], []
    low = high = torch.zeros(1)
    power, total = torch.zeros(1, dtype=torch.float64), 0
    for x in batches:
        square = x.square()
        output = square @ gain  # of each token, channels taken as independent
        share = (1 / (output + output.median()).clamp_min(1e-30)).double()
        order = x.abs().amax(1).argsort(descending=True, stable=True)
        extreme, rest = order[:EXTREME], order[EXTREME:].sort().values
        some = rest[EVERY // 2 :: EVERY] if len(rest) > EVERY // 2 else rest
        stands = torch.ones(len(x), dtype=torch.float64)
        stands[some] = len(rest) / max(1, len(some))
        for part in (extreme, some):
            rows.append(x[part])
            weights.append(stands[part])
            shares.append(stands[part] * share[part])
        low, high = torch.minimum(low, x.amin(0)), torch.maximum(high, x.amax(0))
        power, total = power + square.sum(0, dtype=torch.float64), total + len(x)
    if not rows:
        raise ValueError("a sample of no tokens")
    return InputSample(torch.cat(rows), torch.cat(weights), torch.cat(shares), low, high, (power / total).float())


@torch.no_grad()
def sample_inputs(block: Block, group: tuple[str, ...]) -> InputSample:
    """A sample of what a group of the block's linear layers reads, as the block runs now.

    Raises:
        ValueError: the block has no calibration text.
    """
    if block.batches is None:
        raise ValueError("a sample of a block without calibration text")
    runner, running = BlockRunner(block.spec, block.index), block.running()
    gain = sum((running[n].square().sum(0) for n in group if n in block.grids), torch.zeros(1))
    return sample_of((runner.input_of(group, running, x).flatten(0, -2) for x in block.batches()), gain)
