"""SmoothQuant (arXiv 2211.10438): channels with large inputs hand their size over to the weights.

The scales fold where AWQ's do. The paper's are s = max|x|^a / max|w|^(1-a) with one strength `a` for the model. Here
each place gets the best of a family that also holds b, c in s = max|x|^a rms(x)^c / max|w|^b, by the noise that 8-bit
weights and activations together add to the output: a rounding to steps of d adds d^2 / 12.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from edgeq.quantize.activations import BITS
from edgeq.quantize.block import Block
from edgeq.quantize.sample import InputSample, sample_inputs
from edgeq.quantize.transforms.awq import feeds_back
from edgeq.quantize.transforms.fold import FoldPoint, apply, fold_points, group_of
from edgeq.scheme import Grid

Tensor = torch.Tensor
Floats = npt.NDArray[np.float32]

STRENGTHS = tuple(k / 10 for k in range(11))  # a
WEIGHTS = (0.0, 0.25, 0.5, 0.75)  # b
ENERGIES = (0.0, 0.3, 0.6)  # c
FED_BACK = 0.5  # what error feedback leaves of the noise of the weights, roughly
ROWS = 128  # of each matrix, whose steps stand for all
FLOOR = 1e-5  # of the largest: smaller maxima, those of dead channels among them, count as this


@torch.no_grad()
def smooth(block: Block) -> None:
    """Smooth every fold point of the block where that lowers the noise in what reads it.

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
    """float32 (channels,): the best of the family; None where leaving the channels alone is best."""
    x = _floored(point.gather(torch.maximum(sample.high, -sample.low)).amax(-1))
    rms = _floored(point.gather(sample.power).mean(-1).sqrt())
    names = [n for n in point.targets if n in block.grids]
    w = _floored(torch.stack([point.gather(block.current[n].abs().amax(0)).amax(-1) for n in names]).amax(0))
    matrices = [Reader.of(block.current[n], block.grids[n]) for n in names]
    feedback = FED_BACK if block.method is not None and feeds_back(block.method) else 1.0
    family = [None, *(_scale(x, rms, w, *abc) for abc in product(STRENGTHS, WEIGHTS, ENERGIES))]

    flat = torch.ones(len(sample.low))
    columns = (flat if s is None else point.spread(s) for s in family)
    losses = [noise(sample, matrices, c, activations, feedback) for c in columns]
    return family[min(range(len(losses)), key=losses.__getitem__)]


def _scale(x: Tensor, rms: Tensor, w: Tensor, a: float, b: float, c: float) -> Tensor:
    log = a * x.log() + c * rms.log() - b * w.log()
    return (log - log.mean()).exp()


@dataclass(frozen=True, slots=True)
class Reader:
    """A matrix that reads the input, as far as the noise depends on it.

    Attributes:
        rows: float32 (some rows, K), each of which stands for `share` of them; magnitudes, on a symmetric grid.
        power: float32 (K,): sum of the squares of each column, all rows.
    """

    rows: Floats
    share: float
    power: Tensor
    grid: Grid

    @classmethod
    def of(cls, weight: Tensor, grid: Grid) -> Reader:
        rows = weight[:: max(1, len(weight) // ROWS)]
        rows = rows.abs() if grid.symmetric else rows
        return cls(rows.numpy(), len(weight) / len(rows), weight.square().sum(0), grid)

    def step_powers(self, columns: Tensor) -> Tensor:
        """float32 (K,): sum over all rows of the squared step that the grid's whole range takes, under a scale."""
        grid, width = self.grid, len(columns)
        size = width if grid.group_size == -1 else grid.group_size
        # numpy: so small and many that torch's threads would wait for each other most of the time.
        starts = np.arange(0, width, size)
        scaled = self.rows * columns.numpy()
        top = np.maximum(np.maximum.reduceat(scaled, starts, axis=1), 0)
        spans = 2 * top if grid.symmetric else top - np.minimum(np.minimum.reduceat(scaled, starts, axis=1), 0)
        steps = torch.from_numpy(np.square(spans / (grid.levels - 1)).sum(0) * np.float32(self.share))
        return steps.repeat_interleave(size)[:width]


def noise(
    sample: InputSample,
    matrices: list[Reader],
    columns: Tensor,
    activations: Literal["dynamic", "static"],
    feedback: float = 1.0,
) -> float:
    """Noise in the outputs of matrices that share an input divided by `columns` (K,), each relative to its output.

    A channel whose values are smaller than half a step rounds to zero, and loses no more than its own power.
    """
    power, total, levels = sample.power / columns.square(), 0.0, (1 << BITS) - 1
    if activations == "static":
        step = (float((sample.high / columns).max()) - float((sample.low / columns).min())) / levels
        lost = power.clamp_max(step**2 / 12)
    else:
        x = sample.x.numpy() / columns.numpy()
        steps = torch.from_numpy(x.max(1, initial=0) - x.min(1, initial=0)) / levels
        lost = power.clamp_max(sample.mean(steps.square()) / 12)
    for matrix in matrices:
        gain = matrix.power * columns.square()
        output = float((gain * power).sum())
        rounding = float((matrix.step_powers(columns) * power).sum()) / 12 * feedback
        total += (float((gain * lost).sum()) + rounding) / max(output, 1e-30)
    return total


def _floored(maxima: Tensor) -> Tensor:
    most = float(maxima.max())
    return maxima.clamp_min(FLOOR * most) if most > 0 else torch.ones_like(maxima)
