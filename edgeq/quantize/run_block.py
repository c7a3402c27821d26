"""Running one block of the decoder on tensors of a dict, and stopping at the input of any of its linear layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from edgeq.checkpoint.weights import Weight
from edgeq.decoder.decoder import Stream, block, settled
from edgeq.decoder.torch_ops import TorchOps
from edgeq.errors import EdgeqError
from edgeq.model.spec import ModelSpec
from edgeq.quantize.block import Hook

Tensor = torch.Tensor


class BlockRunner:
    """Layer `index` as a function of its tensors and its input; differentiable in both.

    Attributes:
        used: names of the tensors that the last run asked for.
    """

    def __init__(self, spec: ModelSpec, index: int) -> None:
        self.spec, self.index = spec, index
        self._ops = _BlockOps(spec)

    @property
    def used(self) -> frozenset[str]:
        return frozenset(self._ops.used)

    def __call__(self, tensors: Mapping[str, Tensor], x: Tensor, hook: Hook | None = None) -> Tensor:
        """The block's output for its input x, both (sequences, tokens, hidden).

        Args:
            hook: called with the names of linear layers and the input they share, before they run.
        """
        ops = self._ops
        ops.tensors, ops.hook, ops.used = tensors, hook, set()
        try:
            return settled(ops, block(ops, self.spec, self.index, Stream(x)))
        finally:
            ops.tensors, ops.hook = {}, None

    def input_of(self, group: tuple[str, ...], tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """What the linear layers `group` read, (all tokens, K); the block runs no further."""

        def stop(names: tuple[str, ...], read: Tensor) -> None:
            if names == group:
                raise _Reached(read)

        try:
            self(tensors, x, stop)
        except _Reached as reached:
            return reached.read.flatten(0, -2)
        raise EdgeqError(f"layer {self.index} has no linear layers {', '.join(group)}", where=self.spec.name)


def normed(spec: ModelSpec, norm: Tensor, x: Tensor) -> Tensor:
    """What the head reads for the last block's output x (sequences, tokens, hidden): (all tokens, hidden)."""
    ops = _BlockOps(spec)
    ops.tensors = {"final_norm": norm}
    return ops.norm(x, "final_norm").flatten(0, -2)


class _Reached(Exception):
    def __init__(self, read: Tensor) -> None:
        super().__init__()
        self.read = read


class _BlockOps(TorchOps):
    """The torch backend on tensors given for each run, which are used as they are."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(_NoWeights(spec))
        self.tensors: Mapping[str, Tensor] = {}
        self.hook: Hook | None = None
        self.used: set[str] = set()

    def weight(self, name: str) -> Tensor:
        self.used.add(name)
        return self.tensors[name]

    def linear(self, x: Tensor, names: tuple[str, ...]) -> Tensor:
        if self.hook is not None:
            self.hook(names, x)
        return super().linear(x, names)


class _NoWeights:
    """A spec where weights are wanted."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec

    def names(self) -> Sequence[str]:
        return ()

    def load(self, name: str) -> Weight:
        raise EdgeqError(f"no tensor {name!r}", where=self.spec.name)

    def tokenizer_files(self) -> dict[str, Path | bytes]:
        return {}
