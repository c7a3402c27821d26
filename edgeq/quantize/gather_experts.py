"""Statistics of what single experts read: the tokens that chose them, of several experts in one pass over the text.

An expert that hardly any token chose gets the statistics of all the layer's tokens, put through it: the next text may
send it others, and a fit to a handful would serve none of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from edgeq.estimate.needs import EXPERT_GRAMS
from edgeq.quantize.block import Block
from edgeq.quantize.experts import Group, counts_of, expert_of, hardly_reached, mixture, router, rows_of
from edgeq.quantize.methods.composition import TokenWeights
from edgeq.quantize.passes import Passes, Seen, stands, versions
from edgeq.quantize.run_block import BlockRunner
from edgeq.quantize.sums import Gathered, Sums, energies

Tensor = torch.Tensor


@dataclass(frozen=True, slots=True)
class _Routing:
    """Which experts the tokens of each batch choose, how many each has, and what that came from."""

    choices: list[Tensor]
    counts: list[int]
    seen: Seen


@dataclass(slots=True)
class _Sum:
    """What is being summed up of one group."""

    group: Group
    role: str
    expert: int
    pooled: bool
    sums: Sums
    energy: dict[str, float] = field(default_factory=dict)


class ExpertGatherer:
    """Args: as `edgeq.quantize.gather.Gatherer`'s."""

    def __init__(self, block: Block, quantized: Passes, floats: Passes | None) -> None:
        self._block, self._quantized, self._floats = block, quantized, floats
        self._runner = BlockRunner(block.spec, block.index)
        self._routing: _Routing | None = None

    def chunk(self, group: Group) -> tuple[Group, ...]:
        """The group and those of its kind after it, as many as are gathered at once."""
        kind = expert_of(group)
        assert kind is not None
        same = [g for g in self._block.groups if (of := expert_of(g)) is not None and of[0] == kind[0]]
        ffn = mixture(self._block.spec, self._block.index)
        columns = ffn.intermediate if kind[0] == "down" else self._block.spec.hidden_size
        each = 4 * columns**2 * (1 if self._floats is None else 2)
        first = same.index(group)
        return tuple(same[first : first + max(1, EXPERT_GRAMS // each)])

    @torch.no_grad()
    def gather(self, groups: tuple[Group, ...], weigh: TokenWeights | None) -> dict[Group, Gathered]:
        """Statistics of each group."""
        routing = self.routing()
        wanted = [self._start(g, routing, weigh) for g in groups]
        running, current = self._block.running(), self._block.current
        for chosen, x, float_x in self._inputs(routing):
            for one in wanted:
                rows = slice(None) if one.pooled else rows_of(chosen, one.expert)
                read = x[rows]
                if not len(read):
                    continue
                if one.role == "down":
                    read = self._runner.activated(running, one.expert, read)
                if float_x is None:
                    one.sums.add(read)
                    continue
                float_read = float_x[rows]
                if one.role == "down":
                    float_read = self._runner.activated(current, one.expert, float_read)
                weights = one.sums.add(read, float_read)
                for name, value in energies(current, one.group, float_read, weights).items():
                    one.energy[name] = one.energy.get(name, 0.0) + value
        return {one.group: self._finish(one, routing) for one in wanted}

    def routing(self) -> _Routing:
        """Kept until a tensor before the experts changes."""
        kept = self._routing
        if kept is None or not stands(kept.seen, self._block.running()):
            running, choices = self._block.running(), []
            for batch in self._quantized.inputs(router(self._block.index)):
                choices.append(self._runner.routed(running, batch.flatten(0, -2)).to(torch.int32))
            at = f"layers.{self._block.index}.router"
            names = frozenset(n for n in (at, f"{at}_bias") if n in running)
            counts = counts_of(choices, mixture(self._block.spec, self._block.index).experts)
            kept = self._routing = _Routing(choices, counts, self._quantized.seen | versions(running, names))
        return kept

    def _inputs(self, routing: _Routing) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Choices, and what the router reads in the quantized and in the float stream, batch by batch."""
        group = router(self._block.index)
        floats = None if self._floats is None else self._floats.inputs(group)
        for chosen, x in zip(routing.choices, self._quantized.inputs(group), strict=True):
            yield chosen, x.flatten(0, -2), None if floats is None else next(floats).flatten(0, -2)
        if floats is not None:
            next(floats, None)  # to its end, where it notes what it came from

    def _start(self, group: Group, routing: _Routing, weigh: TokenWeights | None) -> _Sum:
        kind = expert_of(group)
        assert kind is not None
        columns = self._block.current[group[0]].shape[1]
        return _Sum(group, *kind, hardly_reached(routing.counts[kind[1]], columns), Sums(weigh))

    def _finish(self, one: _Sum, routing: _Routing) -> Gathered:
        at = f"layers.{self._block.index}.experts_"
        before: frozenset[str] = frozenset()
        if one.role == "down":
            names = (f"{at}{part}.{one.expert}" for part in ("gate", "up", "gate_bias", "up_bias"))
            before = frozenset(n for n in names if n in self._block.running())
        seen = routing.seen | versions(self._block.running(), before)
        floats: Seen = {}
        if self._floats is not None:
            floats = self._floats.seen | versions(self._block.current, before)
        mean = {n: e / one.sums.weight for n, e in one.energy.items()} if one.sums.weight else {}
        return Gathered(one.sums.result(), mean, (seen, floats), routing.counts[one.expert], one.pooled)
