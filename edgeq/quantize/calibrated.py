"""The road of methods that learn from text: block after block, with hidden states on disk between them.

The quantized stream is what the quantized model's blocks read; the float stream, where a method wants it, what the
unquantized model's do. A step (the embedding, a layer, the rest) writes the hidden states that the next one reads and
its shard, and one line of the journal commits them together. Whatever was not committed is made again, from files
that were: to the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgeq.checkpoint.manifest import FileEntry
from edgeq.checkpoint.shard import write_shard
from edgeq.checkpoint.store import entries
from edgeq.checkpoint.weights import Weights
from edgeq.quantize.activations import activation_grids
from edgeq.quantize.block import Block, load_block
from edgeq.quantize.experts import pieces, stack_of, stacked, stacked_floats, summed_up
from edgeq.quantize.guard import noted
from edgeq.quantize.head import HeadJudge
from edgeq.quantize.hidden import HiddenStates, float_name, hidden_name, intact, write_hidden
from edgeq.quantize.journal import Journal
from edgeq.quantize.layout import Item, Plan, shard_name
from edgeq.quantize.methods.composition import Method, Solver
from edgeq.quantize.one_block import BlockResult, output_error, quantize_block, squared_error
from edgeq.quantize.passes import Passes
from edgeq.quantize.replay import float_embedding, replay, stored_embedding
from edgeq.quantize.run_block import BlockRunner
from edgeq.quantize.solvers.rtn import round_to_nearest
from edgeq.quantize.statistics import InputStatistics
from edgeq.quantize.stream import float_entries, relative_error, store
from edgeq.quantize.tied import tied_statistics
from edgeq.recipe import Activations
from edgeq.registry import Progress

FINE = 8  # bits at which a tied embedding's rounding costs nothing that a solver could win back
Array = npt.NDArray[Any]
Tokens = npt.NDArray[np.int64]
Tensor = torch.Tensor
EMBED = shard_name(None, "embed")
FINAL = shard_name(None)


@dataclass(slots=True)
class CalibratedRun:
    """One run of a method with text, in the folder of its journal.

    Attributes:
        plan: the shards to write; its grids are the checkpoint's.
        tokens: int64 (sequences, length).
        activations: how the inputs of linear layers will be stored.
    """

    source: Weights
    method: Method
    plan: Plan
    tokens: Tokens
    log: Journal
    report: Progress
    activations: Activations = "float"
    _done: int = 0

    @property
    def float_stream(self) -> bool:
        return bool(self.method.needs & {"float_stream", "cross"}) or self.method.refine is not None

    @property
    def shape(self) -> tuple[int, int, int]:
        sequences, length = self.tokens.shape
        return sequences, length, self.source.spec.hidden_size

    def run(self) -> None:
        """Write every shard that is not committed yet."""
        order = list(self.plan)
        for shard in order:
            if shard not in self.log.done:
                break
            self._count(self.plan[shard])
        first = self._take_up(order)
        for shard in order[first:]:
            items = self.plan[shard]
            started = time.perf_counter()
            if shard == EMBED:
                more = self._embed(items)
            elif shard == FINAL:
                more = self._final(items)
            else:
                layer = items[0].tensor.layer
                assert layer is not None
                more = self._layer(layer, items)
            found, errors = more.pop("found"), more.pop("errors")
            written = write_shard(self.log.folder / shard, found)
            self.log.add(shard, *written, errors, step_seconds=time.perf_counter() - started, **more)
            self._sweep(keep=more["hidden"])
            self._count(items)
            del found, more  # a layer's codes, while the next one comes
        total = sum(i.tensor.numel for items in self.plan.values() for i in items)
        self.report(total, total, "done")

    def _take_up(self, order: list[str]) -> int:
        """How many steps are done; what the next one reads lies there and is whole."""
        first = next((k for k, shard in enumerate(order) if shard not in self.log.done), len(order))
        self.log.drop(order[first:])
        hidden = self.log.done[order[first - 1]].hidden if first else {}
        self._sweep(keep=hidden)
        if not all(intact(self.log.folder / name, entry) for name, entry in hidden.items()):
            self.report(self._done, self._done, "hidden states")
            layers = sum(items[0].tensor.layer is not None for items in map(self.plan.__getitem__, order[:first]))
            replay(self.source, self.plan, self.tokens, self.log.folder, layers, float_stream=self.float_stream)
        return first

    def _embed(self, items: list[Item]) -> dict[str, Any]:
        (item,) = items
        self._tell(item.tensor.name)
        spec = self.source.spec
        statistics: InputStatistics | None = None  # looked up, not multiplied: an embedding has no input
        solver: Solver = round_to_nearest
        prunes = self.method.refuses is not None  # which is for layers: a token's row is read whole
        if spec.tied and not prunes and solver is not self.method.solver and item.grid.bits < FINE:
            statistics = tied_statistics(self.source, self.plan, self.tokens, self.log.folder, self.report)
            solver = self.method.solver
        found, error = store(
            self.source, item, lambda matrix: solver(matrix, statistics, item.grid, self.method.search)
        )
        hidden = {hidden_name(0): self._write(hidden_name(0), stored_embedding(spec, item, found, self.tokens))}
        if self.float_stream:
            rows = float_embedding(spec, self.source, item, self.tokens)
            hidden[float_name(0)] = self._write(float_name(0), rows)
        return {"found": found, "errors": {} if error is None else {item.tensor.name: error}, "hidden": hidden}

    def _layer(self, i: int, items: list[Item]) -> dict[str, Any]:
        self._tell(items[0].tensor.name)
        block = self._load(i, items)
        runner = BlockRunner(self.source.spec, i)
        states, hidden = HiddenStates(self.log.folder / hidden_name(i)), {}
        block.batches = states.batches
        folder, shape = self.log.folder, self.tokens.shape
        passes = Passes(runner, block.running, states.batches, shape, folder, "tap")
        floats = None
        if self.float_stream:
            batches = HiddenStates(folder / float_name(i)).batches
            outputs = Passes(runner, lambda: block.original, batches, shape).outputs()
            hidden[float_name(i + 1)] = self._write(float_name(i + 1), outputs)
            block.targets = HiddenStates(folder / float_name(i + 1)).batches
            if "cross" in self.method.needs:
                floats = Passes(runner, lambda: block.current, batches, shape, folder, "float-tap")
        result = quantize_block(block, self.method, passes, floats, self._tell)
        if self.method.refine is not None:
            hidden[hidden_name(i + 1)] = self._refine(block, passes, result)
        elif self._wanted(i + 1):
            hidden[hidden_name(i + 1)] = self._write_output(block, passes)[0]
        elif float_name(i + 1) in hidden:
            del hidden[float_name(i + 1)]
        activations = activation_grids(block, "static") if self.activations == "static" else {}
        found: dict[str, Array] = {}
        for item in items:
            name = item.tensor.name
            if item.grid.kind == "float":
                found |= float_entries(item, stacked_floats(item.tensor, block.current))
            elif item.tensor.expert:
                found |= entries(name, stacked([block.quantized[n] for n in pieces(item.tensor)]))
                summed_up(item.tensor, result)
            else:
                found |= entries(name, block.quantized[name])
        block.close()
        return {
            "found": found,
            "errors": result.errors,
            "hidden": hidden,
            "reports": result.reports,
            "seconds": result.seconds,
            "block": result.block,
            "activations": activations,
        }

    def _final(self, items: list[Item]) -> dict[str, Any]:
        found: dict[str, Array] = {}
        errors: dict[str, float] = {}
        reports, seconds = {}, {}
        judge = None
        for item in items:
            name = item.tensor.name
            self._tell(name)
            started = time.perf_counter()
            if item.grid.kind == "float":
                found |= store(self.source, item, _never)[0]
                continue
            judge = HeadJudge(self.source, self.method, item.grid, self._last_states(), self._last_floats())
            stored, error = store(self.source, item, judge.quantize)
            found |= stored
            errors[name] = error or 0.0
            reports[name], seconds[name] = judge.report(), time.perf_counter() - started
        return {"found": found, "errors": errors, "hidden": {}, "reports": reports, "seconds": seconds}

    def _refine(self, block: Block, passes: Passes, result: BlockResult) -> FileEntry:
        """Refine the block, or leave it as it was where its output becomes worse; the hidden states it gives."""
        assert self.method.refine is not None
        before = output_error(block, passes)
        saved, current = dict(block.quantized), dict(block.current)
        self.method.refine(block)
        entry, after = self._write_output(block, passes)
        result.block = {"before": before, "after": after}
        if not after <= before:
            block.quantized, block.current = saved, current
            entry, _ = self._write_output(block, passes)
            why = f"the refinement of {self.method.name} was worse ({after:.4g} > {before:.4g})"
            result.reports = noted(result.reports, why)
        for name, quantized in block.quantized.items():
            if quantized is not saved[name]:
                result.errors[name] = relative_error(block.current[name].numpy(), quantized)
        return entry

    def _write_output(self, block: Block, passes: Passes) -> tuple[FileEntry, float]:
        """Run the block as it is now; the file of its output, and its mean squared error against the targets."""
        error = [0.0]
        targets = block.targets() if block.targets is not None and self.method.refine is not None else None

        def judged(outputs: Iterator[Tensor]) -> Iterator[Tensor]:
            for y in outputs:
                if targets is not None:
                    error[0] += squared_error(y, next(targets))
                yield y

        entry = self._write(hidden_name(block.index + 1), judged(passes.outputs()))
        return entry, error[0] / float(np.prod(self.shape))

    def _load(self, i: int, items: list[Item]) -> Block:
        grids = {t.tensor.name: t.grid for t in items if t.grid.kind != "float"}
        block = load_block(self.source, i, [t.tensor for t in items], grids, copy=bool(self.method.transforms))
        block.activations = self.activations
        halves = (t.tensor for t in items if t.grid.kind == "float" and t.grid.bits == 16)
        block.halves = frozenset(n for t in halves for n in pieces(t))
        return block

    def _wanted(self, block: int) -> bool:
        """Whether anything reads the input of that block: the last output is read by a head on a grid alone."""
        return block < self.source.spec.n_layers or any(i.grid.kind != "float" for i in self.plan[FINAL])

    def _last_states(self) -> HiddenStates:
        return HiddenStates(self.log.folder / hidden_name(self.source.spec.n_layers))

    def _last_floats(self) -> HiddenStates | None:
        if "cross" not in self.method.needs:
            return None
        return HiddenStates(self.log.folder / float_name(self.source.spec.n_layers))

    @torch.no_grad()
    def _write(self, name: str, batches: Iterator[Tensor]) -> FileEntry:
        return write_hidden(self.log.folder / name, self.shape, batches)

    def _sweep(self, keep: dict[str, FileEntry]) -> None:
        """Remove the hidden states that nothing reads any more."""
        for path in self.log.folder.glob("*.npy"):
            if path.name not in keep:
                path.unlink()

    def _tell(self, name: str) -> None:
        total = sum(i.tensor.numel for items in self.plan.values() for i in items)
        self.report(self._done + self._before(name), total, name)

    def _before(self, name: str) -> int:
        """Weights of the tensor's shard that come before it."""
        for items in self.plan.values():
            names = [i.tensor.name for i in items]
            if stack_of(name) in names:
                return sum(i.tensor.numel for i in items[: names.index(stack_of(name))])
        return 0

    def _count(self, items: list[Item]) -> None:
        self._done += sum(i.tensor.numel for i in items)


def _never(matrix: Array) -> Any:
    raise AssertionError("a float tensor is not quantized")
