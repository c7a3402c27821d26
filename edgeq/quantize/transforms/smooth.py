"""SmoothQuant (arXiv 2211.10438): channels with large inputs hand their size over to the weights.

s = max|x|^a / max|w|^(1-a), folded where AWQ's scales are; how much is handed over, `a`, is searched for each place
by the error that 8-bit weights and activations together leave in the output.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812

from edgeq.decoder.fake_quant import fake_quantized
from edgeq.quantize.activations import DYNAMIC, static_grid
from edgeq.quantize.block import Block
from edgeq.quantize.grids import min_max
from edgeq.quantize.sample import InputSample, sample_inputs
from edgeq.quantize.solvers.rtn import rounded
from edgeq.quantize.transforms.fold import FoldPoint, apply, fold_points, group_of

Tensor = torch.Tensor

STRENGTHS = (0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
FLOOR = 1e-5  # of the largest maximum: smaller ones, dead channels among them, count as this


@torch.no_grad()
def smooth(block: Block) -> None:
    """Smooth every fold point of the block where that lowers the error of what reads it.

    Reads `block.activations`: whether the inputs will be rounded token by token or to one static grid. Without
    quantized activations there is nothing to smooth for, and nothing is done.
    """
    if block.activations == "float":
        return
    for point in fold_points(block.spec, block.index):
        if not any(name in block.grids for name in point.targets):
            continue
        scale = best_scale(block, point, sample_inputs(block, group_of(block, point)), block.activations)
        if scale is not None:
            apply(block, point, scale)


def best_scale(
    block: Block, point: FoldPoint, sample: InputSample, activations: Literal["dynamic", "static"]
) -> Tensor | None:
    """float32 (channels,): the best of all strengths; None where leaving the channels alone is best."""
    x = point.gather(sample.x.abs().amax(0)).amax(-1)
    names = [n for n in point.targets if n in block.grids]
    w = torch.stack([point.gather(block.current[n].abs().amax(0)).amax(-1) for n in names]).amax(0)
    best, least = None, _error(block, point, names, sample, torch.ones(point.channels), activations)
    for strength in STRENGTHS:
        scale = smoothing(x, w, strength)
        error = _error(block, point, names, sample, scale, activations)
        if error < least:
            best, least = scale, error
    return best


def smoothing(x: Tensor, w: Tensor, strength: float) -> Tensor:
    """max|x|^a / max|w|^(1-a) of channels, scaled to a geometric mean of 1."""
    x, w = (m.clamp_min(FLOOR * float(m.max())) if float(m.max()) > 0 else torch.ones_like(m) for m in (x, w))
    log = strength * x.log() - (1 - strength) * w.log()
    return (log - log.mean()).exp()


def _error(
    block: Block,
    point: FoldPoint,
    names: list[str],
    sample: InputSample,
    scale: Tensor,
    activations: Literal["dynamic", "static"],
) -> float:
    """Sum over the matrices of their output's error, each relative to its output."""
    columns = point.spread(scale)
    moved = InputSample(sample.x / columns, sample.weight)
    weights = [block.current[n] * columns for n in names]
    stored = [
        torch.from_numpy(rounded(w.numpy(), min_max(w.numpy(), block.grids[n]), block.grids[n]).dequantize())
        for n, w in zip(names, weights, strict=True)
    ]
    grid = DYNAMIC if activations == "dynamic" else static_grid(moved, torch.cat(weights))
    read, total = fake_quantized(moved.x, grid), 0.0
    for w, q in zip(weights, stored, strict=True):
        output = F.linear(moved.x, w)
        off = sample.mean((F.linear(read, q) - output).square().sum(1))
        total += off / max(sample.mean(output.square().sum(1)), 1e-30)
    return total
