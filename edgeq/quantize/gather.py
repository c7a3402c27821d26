"""Gathering the statistics of a group's input: the block runs up to the group, batch by batch."""

from __future__ import annotations

import torch

from edgeq.quantize.block import Block
from edgeq.quantize.experts import expert_of
from edgeq.quantize.gather_experts import ExpertGatherer
from edgeq.quantize.methods.composition import TokenWeights
from edgeq.quantize.passes import Passes, stands
from edgeq.quantize.statistics import InputStatistics
from edgeq.quantize.sums import Gathered, Sums, energies


class Gatherer:
    """Statistics of one block's groups on demand; kept until a tensor before the group changes.

    Args:
        quantized: passes of the quantized stream.
        floats: those of the float stream through `block.current`, in lockstep, where `cross` is wanted.
        weigh: weights of tokens by their input; None: all alike.
    """

    def __init__(
        self, block: Block, quantized: Passes, floats: Passes | None = None, weigh: TokenWeights | None = None
    ) -> None:
        self._block, self._quantized, self._floats, self._weigh = block, quantized, floats, weigh
        self._kept: dict[tuple[str, ...], Gathered] = {}
        self._experts = ExpertGatherer(block, quantized, floats)

    def statistics_of(self, group: tuple[str, ...]) -> InputStatistics:
        return self.gathered(group).statistics

    def gathered(self, group: tuple[str, ...]) -> Gathered:
        kept = self._kept.get(group)
        if kept is None or not self._stands(kept):
            self._kept.clear()  # a gram matrix is among the largest things in memory: never more than one group's
            if expert_of(group) is not None:  # or of as many experts as are small enough
                self._kept |= self._experts.gather(self._experts.chunk(group), self._weigh)
            else:
                self._kept[group] = self._gather(group)
        return self._kept[group]

    def forget(self) -> None:
        self._kept.clear()

    @torch.no_grad()
    def _gather(self, group: tuple[str, ...]) -> Gathered:
        sums = Sums(self._weigh)
        if self._floats is None:
            for batch in self._quantized.inputs(group):
                sums.add(batch.flatten(0, 1))
            return Gathered(sums.result(), {}, (self._quantized.seen, {}))
        energy = dict.fromkeys(group, 0.0)
        for batch, float_batch in zip(self._quantized.inputs(group), self._floats.inputs(group), strict=True):
            float_read = float_batch.flatten(0, 1)
            weights = sums.add(batch.flatten(0, 1), float_read)
            for name, value in energies(self._block.current, group, float_read, weights).items():
                energy[name] += value
        mean = {n: e / sums.weight for n, e in energy.items()} if sums.weight else {}
        return Gathered(sums.result(), mean, (self._quantized.seen, self._floats.seen))

    def _stands(self, kept: Gathered) -> bool:
        return stands(kept.seen[0], self._block.running()) and stands(kept.seen[1], self._block.current)
