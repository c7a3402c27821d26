"""Measured sensitivity: what quantizing one matrix to a grid costs the whole model, to second order.

The KL divergence between the model and the model with `W + dW` is `1/2 E[(g . dW x)^2]`, where x is the matrix' input
at a token and g the gradient of the loss with respect to its output there, the labels drawn from the model's own
distribution (the Fisher information; Martens, arXiv 1412.1193). Terms of different tokens are taken as uncorrelated.
One forward and one backward pass give g for all matrices; a block at a time is in memory, as everywhere. dW is what
the method's own solver leaves, on some rows of each matrix: error feedback makes good more of it on some grids than on
others, which a choice by rounding to nearest would not see.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from edgeq.checkpoint.weights import Weights, dense
from edgeq.decoder.decoder import Stream, block, check_supported, embedding, settled
from edgeq.decoder.torch_ops import ABLE, TorchOps
from edgeq.quantize.methods import find_method
from edgeq.quantize.methods.composition import Method
from edgeq.quantize.statistics import InputStatistics
from edgeq.quantize.sums import Sums
from edgeq.quantize.tied import with_input_share
from edgeq.registry import Progress
from edgeq.scheme import Grid

Tensor = torch.Tensor
Floats = npt.NDArray[np.float32]
Losses = dict[str, dict[Grid, float]]
HEAD_TOKENS = 256  # logits of so many tokens at once
ROWS = 96  # of a matrix, which stand for all
HEAD_ROWS = 2048  # of the head: those of the likeliest tokens


class _Recorder(TorchOps):
    """Remembers every linear layer's input and output of one pass."""

    def __init__(self, weights: Weights) -> None:
        super().__init__(weights, keep=False)
        self.seen: dict[str, tuple[Tensor, Tensor]] = {}

    def linear(self, x: Tensor, names: tuple[str, ...]) -> Tensor:
        parts = []
        for name in names:
            y = torch.nn.functional.linear(x, self.weight(name), self._bias(name))
            if y.requires_grad:
                y.retain_grad()
            self.seen[name] = (x.detach(), y)
            parts.append(y)
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


def sensitivity(
    source: Weights,
    tokens: npt.NDArray[np.int64],
    choices: Mapping[str, Sequence[Grid]],
    method: Method | None = None,
    *,
    seed: int = 0,
    work: Path | None = None,
    progress: Progress | None = None,
) -> Losses:
    """Expected KL divergence (nats a token) of quantizing each matrix of `choices` to each of its grids, by itself.

    Args:
        tokens: int64 (sequences, length).
        method: whose solver finds the codes; None: they are rounded to nearest.
        work: folder for the hidden states, which are removed again.

    Raises:
        EdgeqError: a layer the decoder can't run.
    """
    spec = source.spec
    check_supported(spec, ABLE)
    report = progress or (lambda *_: None)
    total = 2 * spec.n_layers + 1
    found: Losses = {}
    rounding = _Rounding(method or find_method("rtn"))
    generator = torch.Generator().manual_seed(seed)
    ids = torch.from_numpy(np.ascontiguousarray(tokens))
    with tempfile.TemporaryDirectory(dir=work, prefix="sensitivity.", suffix=".partial") as folder:
        states = _States(Path(folder))
        with torch.no_grad():
            ops = TorchOps(source, keep=False)
            x = settled(ops, embedding(ops, spec, ids))
            for i in range(spec.n_layers):
                report(i, total, f"sensitivity: layer {i} forward")
                states.save(i, x)
                x = settled(ops, block(TorchOps(source, keep=False), spec, i, Stream(x)))
        report(spec.n_layers, total, "sensitivity: head")
        gradient, head_losses, read = _head(source, x, choices, generator, rounding)
        found.update(head_losses)
        for i in reversed(range(spec.n_layers)):
            report(2 * spec.n_layers - i, total, f"sensitivity: layer {i} backward")
            gradient = _block(source, i, states.load(i), gradient, choices, found, rounding)
    _embedding(source, ids, gradient, choices, found, rounding, read if spec.tied else None)
    return found


class _Rounding:
    """What a method's solver leaves of a matrix on each of its grids."""

    def __init__(self, method: Method) -> None:
        # Towards the float model's output, as with `cross`, there is nothing to correct before anything is rounded.
        self._method = find_method("gptq") if "cross" in method.needs else method

    def changes(
        self, weight: Floats, statistics: InputStatistics | None, grids: Sequence[Grid]
    ) -> Iterator[tuple[Grid, Tensor]]:
        for grid in grids:
            if grid.kind == "float":
                yield grid, torch.zeros(weight.shape)
                continue
            quantized = self._method.quantize(weight, grid, statistics)
            yield grid, torch.from_numpy(quantized.dequantize() - weight)


def _statistics(x: Tensor) -> InputStatistics:
    sums = Sums()
    sums.add(x)
    return sums.result()


class _States:
    """Block inputs on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, i: int, x: Tensor) -> None:
        np.save(self.folder / f"{i}.npy", x.numpy())

    def load(self, i: int) -> Tensor:
        return torch.from_numpy(np.load(self.folder / f"{i}.npy"))


def _block(
    source: Weights,
    i: int,
    x: Tensor,
    gradient: Tensor,
    choices: Mapping[str, Sequence[Grid]],
    found: Losses,
    rounding: _Rounding,
) -> Tensor:
    """Losses of layer i's matrices; the gradient with respect to the layer's input. One sequence at a time."""
    ops = _Recorder(_Held(source, f"layers.{i}."))
    inputs: dict[str, list[Tensor]] = {}
    outputs: dict[str, list[Tensor]] = {}
    below = torch.empty_like(gradient)
    for s in range(len(x)):
        state = x[s : s + 1].requires_grad_()
        y = settled(ops, block(ops, source.spec, i, Stream(state)))
        y.backward(gradient[s : s + 1])  # type: ignore[no-untyped-call]
        assert state.grad is not None
        below[s] = state.grad[0]
        for name, (seen, made) in ops.seen.items():
            if name in choices:
                assert made.grad is not None
                inputs.setdefault(name, []).append(seen[0])
                outputs.setdefault(name, []).append(made.grad[0])
    for name in inputs:
        seen, slope = torch.cat(inputs[name]), torch.cat(outputs[name])
        weight = dense(source.load(name)).astype(np.float32)
        rows = _some(len(weight))
        share, slope = len(weight) / len(rows), slope[:, rows]
        changes = rounding.changes(np.ascontiguousarray(weight[rows]), _statistics(seen), choices[name])
        found[name] = {grid: share * _loss(d, seen, slope) for grid, d in changes}
    return below


def _some(rows: int) -> npt.NDArray[np.int64]:
    """Evenly spaced rows that stand for all: errors of different rows are independent, so that their losses add up."""
    return np.unique(np.linspace(0, rows - 1, min(rows, ROWS)).astype(np.int64))


def _loss(change: Tensor, x: Tensor, slope: Tensor) -> float:
    """Half the mean over tokens of the sum over rows of `(slope_r (change x)_r)^2`, in nats a token."""
    return 0.5 * float((slope * (x @ change.T)).square().sum(-1).double().mean())


def _head(
    source: Weights,
    x: Tensor,
    choices: Mapping[str, Sequence[Grid]],
    generator: torch.Generator,
    rounding: _Rounding,
) -> tuple[Tensor, Losses, InputStatistics]:
    """Gradient of the loss at labels drawn from the model, with respect to the last hidden state; the head's losses;
    the statistics by which it is rounded.

    The head's own loss is half the variance of the logits' change under the prediction, errors of different rows being
    independent; the rows that the prediction gives most to stand for all.
    """
    name = "embed" if source.spec.tied else "head"
    ops = TorchOps(source, keep=False)
    kept = ops.weight(name)
    spec = source.spec
    below = torch.empty_like(x)
    rows: list[Tensor] = []
    pieces: list[tuple[Tensor, Tensor]] = []

    def logits(y: Tensor) -> Tensor:
        out = y @ kept.T
        if spec.head_bias:
            out = out + ops.weight("head_bias")
        out = out.float() * spec.logit_scale
        return out if spec.logit_softcap is None else spec.logit_softcap * torch.tanh(out / spec.logit_softcap)

    flat, flat_below = x.flatten(0, 1), below.flatten(0, 1)
    for a in range(0, len(flat), HEAD_TOKENS):
        state = flat[a : a + HEAD_TOKENS].clone().requires_grad_()
        y = ops.norm(state, "final_norm")
        log_probs = logits(y).log_softmax(-1)
        labels = torch.multinomial(log_probs.detach().exp(), 1, generator=generator)
        (-log_probs.gather(1, labels).sum()).backward()  # type: ignore[no-untyped-call]
        assert state.grad is not None
        flat_below[a : a + HEAD_TOKENS] = state.grad
        rows.append(y.detach())
        if a == 0:
            pieces.append((y.detach(), log_probs.detach().exp()))
    read = _statistics(torch.cat(rows))
    if spec.tied:
        read = with_input_share(read)
    if name not in choices:
        return below, {}, read
    y, probs = pieces[0]
    weight = probs * (1 - probs)
    likely = weight.sum(0).topk(min(HEAD_ROWS, weight.shape[1])).indices.sort().values
    total, weight = weight.sum(-1), weight[:, likely]
    losses: dict[Grid, float] = {}
    for grid, change in rounding.changes(np.ascontiguousarray(kept[likely].numpy()), read, choices[name]):
        moved = y @ change.T * spec.logit_scale
        mean = (weight * moved.square()).sum(-1) / weight.sum(-1).clamp_min(1e-30)
        losses[grid] = 0.5 * float((total * mean).double().mean())
    return below, {name: losses}, read


def _embedding(
    source: Weights,
    ids: Tensor,
    gradient: Tensor,
    choices: Mapping[str, Sequence[Grid]],
    found: Losses,
    rounding: _Rounding,
    read: InputStatistics | None,
) -> None:
    """Add what rounding the embedding's rows costs through the layers (a tied one has its head's loss already)."""
    if "embed" not in choices:
        return
    weight = dense(source.load("embed")).astype(np.float32)
    used = np.unique(ids.numpy())
    place = torch.from_numpy(np.searchsorted(used, ids.numpy()))
    losses = found.setdefault("embed", {})
    for grid, change in rounding.changes(np.ascontiguousarray(weight[used]), read, choices["embed"]):
        moved = change[place] * source.spec.embed_scale
        through = 0.5 * float((gradient * moved).sum(-1).double().square().mean())
        losses[grid] = losses.get(grid, 0.0) + through


class _Held:
    """A layer's tensors, loaded once while its sequences pass through."""

    def __init__(self, source: Weights, prefix: str) -> None:
        self._source, self._prefix = source, prefix
        self._held: dict[str, Floats] = {}
        self.spec = source.spec
        self.names: Callable[[], Sequence[str]] = source.names
        self.tokenizer_files = source.tokenizer_files

    def load(self, name: str) -> Floats:
        if name not in self._held:
            self._held[name] = dense(self._source.load(name))
        return self._held[name]
