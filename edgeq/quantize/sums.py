"""Sums over calibration tokens, from which statistics of a group's input come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from edgeq.quantize.methods.composition import TokenWeights
from edgeq.quantize.passes import Seen
from edgeq.quantize.statistics import InputStatistics

Tensor = torch.Tensor


class Sums:
    """Sums over the tokens of one input: products in float32, vectors in float64.

    Attributes:
        tokens, weight: taken in so far, and the sum of their weights.
    """

    def __init__(self, weigh: TokenWeights | None = None) -> None:
        self._weigh = weigh
        self.tokens = 0
        self.weight = 0.0
        self._gram: Tensor | None = None
        self._cross: Tensor | None = None

    def add(self, x: Tensor, float_x: Tensor | None = None) -> Tensor | None:
        """Take in x (tokens, K) and, for `cross`, the same tokens' input in the unquantized model; their weights."""
        if self._gram is None:
            self._start(x, float_x is not None)
        assert self._gram is not None
        weights = None if self._weigh is None else self._weigh(x).to(torch.float32)
        weighted = x if weights is None else x * weights[:, None]
        self._gram.addmm_(weighted.T, x)
        if float_x is not None:
            assert self._cross is not None
            self._cross.addmm_(float_x.T, weighted)
        self.tokens += len(x)
        self.weight += len(x) if weights is None else float(weights.sum(dtype=torch.float64))
        self._sum += x.sum(0, dtype=torch.float64)
        self._magnitude += x.abs().sum(0, dtype=torch.float64)
        torch.minimum(self._low, x.amin(0), out=self._low)
        torch.maximum(self._high, x.amax(0), out=self._high)
        return weights

    def result(self) -> InputStatistics:
        """The statistics; the sums are used up."""
        assert self._gram is not None and self.tokens, "no batch was added"
        per_weight = 1 / self.weight if self.weight else 0.0
        return InputStatistics(
            tokens=self.tokens,
            gram=self._gram.mul_(per_weight),
            absmax=torch.maximum(self._high.abs(), self._low.abs()),
            absmean=(self._magnitude / self.tokens).float(),
            mean=(self._sum / self.tokens).float(),
            minimum=self._low,
            maximum=self._high,
            cross=None if self._cross is None else self._cross.mul_(per_weight),
        )

    def _start(self, x: Tensor, cross: bool) -> None:
        k = x.shape[1]
        self._gram = torch.zeros(k, k)
        self._cross = torch.zeros(k, k) if cross else None
        self._sum, self._magnitude = torch.zeros(k, dtype=torch.float64), torch.zeros(k, dtype=torch.float64)
        self._low, self._high = torch.full((k,), torch.inf), torch.full((k,), -torch.inf)


@dataclass(frozen=True, slots=True)
class Gathered:
    """Attributes:
    energy: with `cross` alone: matrix -> mean of ||W x_float||^2 over the tokens (weighted as the statistics are),
        what the layer puts out in the unquantized model.
    seen: what led to the input, in either stream: while these stand, so do the statistics.
    reached: of an expert: how many tokens chose it.
    pooled: of an expert that hardly any did: the statistics are those of all the layer's tokens.
    """

    statistics: InputStatistics
    energy: dict[str, float]
    seen: tuple[Seen, Seen]
    reached: int | None = None
    pooled: bool = False


def energies(
    tensors: Mapping[str, Tensor], group: tuple[str, ...], x: Tensor, weights: Tensor | None
) -> dict[str, float]:
    found = {}
    for name in group:
        power = torch.nn.functional.linear(x, tensors[name]).square_().sum(1)
        found[name] = float((power if weights is None else power * weights).sum(dtype=torch.float64))
    return found
