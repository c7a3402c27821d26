"""Running one block of the decoder on tensors of a dict, and stopping at the input of any of its linear layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from edgeq.checkpoint.weights import Weight
from edgeq.decoder.decoder import Stream, block, settled
from edgeq.decoder.torch_ops import TorchOps, expert_activation
from edgeq.errors import EdgeqError
from edgeq.model.spec import MLP, Attention, ModelSpec, MoE
from edgeq.quantize.block import Hook
from edgeq.quantize.experts import member, mixture, router

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

    def __call__(
        self,
        tensors: Mapping[str, Tensor],
        x: Tensor,
        hook: Hook | None = None,
        *,
        attended: Tensor | None = None,
        activated: Tensor | None = None,
    ) -> Tensor:
        """The block's output for its input x, both (sequences, tokens, hidden).

        Args:
            hook: called with the names of linear layers and the input they share, before they run.
            attended, activated: the inputs of `o` and of `down` where they are known: what leads there is left out.
        """
        ops = self._ops
        ops.tensors, ops.hook, ops.used = tensors, hook, set()
        ops.attended, ops.activated = attended, activated
        try:
            return settled(ops, block(ops, self.spec, self.index, Stream(x)))
        finally:
            ops.tensors, ops.hook, ops.attended, ops.activated = {}, None, None, None

    def input_of(
        self, group: tuple[str, ...], tensors: Mapping[str, Tensor], x: Tensor, attended: Tensor | None = None
    ) -> Tensor:
        """What the linear layers `group` read, (sequences, tokens, K); the block runs no further."""

        def stop(names: tuple[str, ...], read: Tensor) -> None:
            if names == group:
                raise _Reached(read)

        try:
            self(tensors, x, stop, attended=attended)
        except _Reached as reached:
            return reached.read
        raise EdgeqError(f"layer {self.index} has no linear layers {', '.join(group)}", where=self.spec.name)

    def routed(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """The experts (tokens, active) that tokens x (tokens, hidden) choose, which a router reads."""
        self._ops.tensors = tensors
        return self._ops.routing(x, self.index, mixture(self.spec, self.index))[1]

    def activated(self, tensors: Mapping[str, Tensor], e: int, x: Tensor) -> Tensor:
        """What `down` of expert `e` reads for tokens x (tokens, hidden), whether they chose it or not."""
        ops, ffn, at = self._ops, mixture(self.spec, self.index), f"layers.{self.index}.experts_"
        ops.tensors = tensors
        return expert_activation(ops.expert_linear(x, (f"{at}gate", f"{at}up"), e, ffn), ffn)


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
        self.attended: Tensor | None = None
        self.activated: Tensor | None = None

    def weight(self, name: str) -> Tensor:
        self.used.add(name)
        return self.tensors[name]

    def linear(self, x: Tensor, names: tuple[str, ...]) -> Tensor:
        if self.hook is not None:
            self.hook(names, x)
        last = names[-1].rpartition(".")[2]
        if (last == "v" and self.attended is not None) or (last == "up" and self.activated is not None):
            return x  # what is made of it is known
        return super().linear(x, names)

    def moe(self, x: Tensor, layer: int, spec: MoE) -> Tensor:
        if self.hook is not None:
            self.hook(router(layer), x)
        return super().moe(x, layer, spec)

    def expert_weight(self, name: str, e: int) -> Tensor:
        return self.weight(member(name, e))

    def attention(self, qkv: Tensor, layer: int, spec: Attention) -> Tensor:
        return super().attention(qkv, layer, spec) if self.attended is None else self.attended

    def activate(self, x: Tensor, spec: MLP) -> Tensor:
        return super().activate(x, spec) if self.activated is None else self.activated


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
