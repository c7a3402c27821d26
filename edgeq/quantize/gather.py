"""Gathering the statistics of a group's input: the block runs up to the group, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch

from edgeq.quantize.block import Block
from edgeq.quantize.methods.composition import TokenWeights
from edgeq.quantize.run_block import BlockRunner
from edgeq.quantize.statistics import InputStatistics

Tensor = torch.Tensor
Batches = Callable[[], Iterator[Tensor]]


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
    seen: the tensors that led to the input, and their versions: while these stand, so do the statistics.
    """

    statistics: InputStatistics
    energy: dict[str, float]
    seen: dict[str, tuple[Tensor, int]]


class Gatherer:
    """Statistics of one block's groups on demand; kept until a tensor before the group changes.

    Args:
        batches: inputs of the quantized stream.
        float_batches: those of the float stream, where `cross` is wanted: they run in lockstep through `current`.
        weigh: weights of tokens by their input; None: all alike.
    """

    def __init__(
        self,
        block: Block,
        runner: BlockRunner,
        batches: Batches,
        float_batches: Batches | None = None,
        weigh: TokenWeights | None = None,
    ) -> None:
        self._block, self._runner = block, runner
        self._batches, self._float_batches = batches, float_batches
        self._weigh = weigh
        self._kept: dict[tuple[str, ...], Gathered] = {}

    def statistics_of(self, group: tuple[str, ...]) -> InputStatistics:
        return self.gathered(group).statistics

    def gathered(self, group: tuple[str, ...]) -> Gathered:
        kept = self._kept.get(group)
        if kept is None or not self._stands(kept):
            self._kept.clear()  # a gram matrix is among the largest things in memory: never more than one group's
            self._kept[group] = self._gather(group)
        return self._kept[group]

    def forget(self) -> None:
        self._kept.clear()

    @torch.no_grad()
    def _gather(self, group: tuple[str, ...]) -> Gathered:
        block, sums = self._block, Sums(self._weigh)
        running, floats = block.running(), dict(block.current)
        others = None if self._float_batches is None else self._float_batches()
        energy = {} if others is None else dict.fromkeys(group, 0.0)
        used: frozenset[str] = frozenset()
        total = 0.0
        for batch in self._batches():
            read = self._runner.input_of(group, running, batch)
            used = self._runner.used
            if others is None:
                sums.add(read)
                continue
            float_read = self._runner.input_of(group, floats, next(others))
            weights = sums.add(read, float_read)
            total += len(read) if weights is None else float(weights.sum(dtype=torch.float64))
            for name, value in _energies(floats, group, float_read, weights).items():
                energy[name] += value
        sources: list[Mapping[str, Tensor]] = [running] if others is None else [running, floats]
        seen = {f"{k}:{n}": (s[n], s[n]._version) for k, s in enumerate(sources) for n in used}
        return Gathered(sums.result(), {n: e / total for n, e in energy.items() if total}, seen)

    def _stands(self, kept: Gathered) -> bool:
        now: list[Mapping[str, Tensor]] = [self._block.running(), self._block.current]
        for key, (tensor, version) in kept.seen.items():
            which, _, name = key.partition(":")
            if now[int(which)].get(name) is not tensor or tensor._version != version:
                return False
        return True


def _energies(
    tensors: Mapping[str, Tensor], group: tuple[str, ...], x: Tensor, weights: Tensor | None
) -> dict[str, float]:
    found = {}
    for name in group:
        power = torch.nn.functional.linear(x, tensors[name]).square_().sum(1)
        found[name] = float((power if weights is None else power * weights).sum(dtype=torch.float64))
    return found
