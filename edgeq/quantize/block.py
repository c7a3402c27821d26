"""Block: one layer of the model in memory, the only one that is, and the means to run it on the calibration text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import torch

from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.checkpoint.weights import Weights, dense
from edgeq.errors import EdgeqError
from edgeq.model.spec import MLP, ModelSpec, MoE
from edgeq.model.tensors import TensorSpec
from edgeq.quantize.experts import expert_groups, pieces, split
from edgeq.quantize.statistics import InputStatistics
from edgeq.scheme import Grid

if TYPE_CHECKING:
    from edgeq.quantize.methods.composition import Method

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
        groups: names of linear layers that share an input, in the order they run: (q, k, v), (o,), (gate, up), (down,);
            of experts (gate, up) of each, (down,) of each, and then the shared ones'. Experts are matrices of their own
            here, see `edgeq.quantize.experts`.
        halves: matrices that are stored in half precision.
        method: how its matrices will be quantized, which is what a transform prepares them for.
        activations: how the inputs of its matrices will be stored, likewise.
    """

    spec: ModelSpec
    index: int
    original: dict[str, Tensor]
    current: dict[str, Tensor]
    grids: dict[str, Grid]
    groups: tuple[tuple[str, ...], ...]
    quantized: dict[str, QuantizedTensor] = field(default_factory=dict)
    halves: frozenset[str] = frozenset()
    # Set by the engine:
    batches: Callable[[], Iterator[Tensor]] | None = None  # inputs of the quantized stream, (sequences, tokens, hidden)
    targets: Callable[[], Iterator[Tensor]] | None = None  # outputs of the float block on the float stream, alike
    statistics_of: Callable[[tuple[str, ...]], InputStatistics] | None = None  # of a group's input, gathered on demand
    method: Method | None = None
    activations: Literal["float", "dynamic", "static"] = "float"
    _values: dict[str, tuple[QuantizedTensor, Tensor]] = field(default_factory=dict)

    def running(self) -> dict[str, Tensor]:
        """The tensors as the block runs now, float32: quantized ones by their values, the others as they are.

        Values are computed once for each `QuantizedTensor` and must not be changed.
        """
        found = dict(self.current)
        for name, quantized in self.quantized.items():
            if name not in self._values or self._values[name][0] is not quantized:
                self._values[name] = (quantized, aligned(quantized.dequantize()))
            found[name] = self._values[name][1]
        return found

    def close(self) -> None:
        """Let go of the engine's callables, which hold the block: its memory is free at once."""
        self.batches = self.targets = self.statistics_of = None

    def release(self, name: str) -> None:
        """Forget the float values of a matrix that is quantized and that nothing will ask for again."""
        self.current.pop(name, None)
        self.original.pop(name, None)


def aligned(values: npt.NDArray[np.float32]) -> Tensor:
    """A float32 copy in torch's own memory: products of matrices repeat to the bit only at the same alignment."""
    out = torch.empty(values.shape, dtype=torch.float32)
    out.numpy()[...] = values
    return out


def load_block(
    source: Weights, index: int, parts: Iterable[TensorSpec], grids: dict[str, Grid], *, copy: bool = False
) -> Block:
    """Layer `index` of `source`, its tensors `parts`. `copy`: `current` gets memory of its own, for transforms.

    Raises:
        EdgeqError: a tensor has another shape than the model needs, or values that are not finite.
    """
    parts = list(parts)
    original = {name: aligned(values) for t in parts for name, values in split(t, _load(source, t))}
    grids = {n: grids[t.name] for t in parts if t.name in grids for n in pieces(t)}
    current = {n: t.clone() for n, t in original.items()} if copy else dict(original)
    return Block(source.spec, index, original, current, grids, groups(source.spec, index))


def groups(spec: ModelSpec, index: int) -> tuple[tuple[str, ...], ...]:
    """Names of the linear layers of a layer that share an input, in the order they are quantized."""
    ffn = spec.layers[index].ffn
    attention = (("q", "k", "v"), ("o",))
    if isinstance(ffn, MoE):
        shared = (("shared_gate", "shared_up"), ("shared_down",)) if ffn.shared_intermediate else ()
        return (*_named(index, attention), *expert_groups(index, ffn), *_named(index, shared))
    gated = isinstance(ffn, MLP) and ffn.gated
    return _named(index, (*attention, ("gate", "up") if gated else ("up",), ("down",)))


def _named(index: int, roles: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(f"layers.{index}.{role}" for role in group) for group in roles)


def _load(source: Weights, t: TensorSpec) -> npt.NDArray[np.float32]:
    values = dense(source.load(t.name))
    if t.expert:  # a checkpoint gives quantized ones as one matrix
        values = values.reshape(t.shape)
    if values.shape != t.shape:
        raise EdgeqError(f"the source gives shape {values.shape}, the model needs {t.shape}", where=t.name)
    if not np.isfinite(values).all():
        hint = "The source file is damaged"
        raise EdgeqError("this weight holds values that are not finite", where=t.name, hint=hint)
    return values
