"""Passes of one stream through a block, each taking up where an earlier one had come to.

The inputs of `o`, of `down` and of experts are put down on disk when they are first seen. As long as the tensors before
them stay as they were, later passes read them there: attention, a block's dearest part beside its matrices, runs once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from edgeq.quantize.hidden import HiddenStates, HiddenWriter
from edgeq.quantize.run_block import BlockRunner

Tensor = torch.Tensor
Batches = Callable[[], Iterator[Tensor]]
Seen = dict[str, tuple[Tensor, int]]  # tensors that a result came from, and their versions


TAPPED = ("o", "down", "router")  # what is put down; `router` reads what all experts do


@dataclass(frozen=True, slots=True)
class Tap:
    """The input of a group of linear layers, on disk."""

    states: HiddenStates
    seen: Seen


def versions(tensors: Mapping[str, Tensor], names: frozenset[str]) -> Seen:
    return {n: (tensors[n], tensors[n]._version) for n in sorted(names)}


def stands(seen: Seen, tensors: Mapping[str, Tensor]) -> bool:
    """Nothing that a result came from has been changed or replaced."""
    return all(tensors.get(n) is t and t._version == version for n, (t, version) in seen.items())


class Passes:
    """Args:
    tensors: what the block runs with, asked for at each pass.
    batches: its input.
    shape: (sequences, tokens).
    folder, name: where taps lie; files `name-o.npy`, `name-down.npy`, ... Without a folder every pass starts at the
        front.
    """

    def __init__(
        self,
        runner: BlockRunner,
        tensors: Callable[[], Mapping[str, Tensor]],
        batches: Batches,
        shape: tuple[int, int],
        folder: Path | None = None,
        name: str = "tap",
    ) -> None:
        self._runner, self._tensors, self._batches = runner, tensors, batches
        self._shape, self._folder, self._name = shape, folder, name
        self._taps: dict[str, Tap] = {}
        self.seen: Seen = {}

    def inputs(self, group: tuple[str, ...]) -> Iterator[Tensor]:
        """What a group reads, batch by batch, (sequences, tokens, K). `seen` then says what it came from."""
        role = group[0].rpartition(".")[2]
        tensors = self._tensors()
        tap = self._tap(role, tensors)
        if tap is not None:
            self.seen = tap.seen
            yield from tap.states.batches()
            return
        attended = self._tap("o", tensors)
        kept = None if attended is None else attended.states.batches()
        names: frozenset[str] = frozenset()
        writer = self._writer(role)
        try:
            for x in self._batches():
                read = self._runner.input_of(group, tensors, x, None if kept is None else next(kept))
                names = self._runner.used
                if writer is not None:
                    writer.add(read)
                yield read
        except BaseException:
            if writer is not None:
                writer.abandon()
            raise
        self.seen = versions(tensors, names) | ({} if attended is None else attended.seen)
        if writer is not None:
            self._taps[role] = Tap(writer.finish(), self.seen)

    def outputs(self) -> Iterator[Tensor]:
        """What the block puts out, (sequences, tokens, hidden)."""
        tensors = self._tensors()
        kept = [
            None if t is None else t.states.batches() for t in (self._tap("o", tensors), self._tap("down", tensors))
        ]
        for x in self._batches():
            attended, activated = (None if k is None else next(k) for k in kept)
            yield self._runner(tensors, x, attended=attended, activated=activated)

    def _tap(self, role: str, tensors: Mapping[str, Tensor]) -> Tap | None:
        tap = self._taps.get(role)
        return tap if tap is not None and stands(tap.seen, tensors) else None

    def _writer(self, role: str) -> HiddenWriter | None:
        if self._folder is None or role not in TAPPED:
            return None
        self._taps.pop(role, None)
        return HiddenWriter(self._folder / f"{self._name}-{role}.npy", self._shape)
