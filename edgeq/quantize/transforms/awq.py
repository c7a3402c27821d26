"""AWQ (arXiv 2306.00978): a scale a channel that evens out what rounding costs, chosen by what it does to the output.

Where few input channels carry most of the energy, weights that share a step spend its precision on channels that
hardly matter. Candidates are `s = x^a / w^(1-a)`: x the magnitude of a channel's input, w that of its weights. Two
things go beyond the paper. What a column's error costs depends on the solver: with error feedback only the part that
later columns can't take over, which favours smaller `a` than rounding to nearest does. And as only ratios inside a
group of the grid matter, every group has an `a` of its own.

The paper's search of clipped ranges is the grid search's, which shrinks them group by group anyway.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from edgeq.quantize.block import Block
from edgeq.quantize.methods.composition import Method, Search
from edgeq.quantize.solvers.hessian import by_importance, damped
from edgeq.quantize.solvers.rtn import round_to_nearest, rounded
from edgeq.quantize.statistics import InputStatistics
from edgeq.quantize.transforms.fold import FoldPoint, apply, fold_points, group_of
from edgeq.scheme import Grid

Tensor = torch.Tensor

EXPONENTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.65)
ROWS = 128  # of each matrix that candidates are tried on; more of them choose the same
FLOOR = 1e-4  # of the mean: smaller magnitudes, those of dead channels among them, count as this


def awq(block: Block) -> None:
    """Scale the channels of every fold point of the block where it lowers the error of the layers behind it.

    Reads `block.method`: its grid search, and whether its solver feeds errors back.

    Raises:
        ValueError: the block has no statistics or no method.
    """
    if block.statistics_of is None or block.method is None:
        raise ValueError("AWQ needs a block with statistics and a method")
    for point in fold_points(block.spec, block.index):
        if not any(name in block.grids for name in point.targets):
            continue
        statistics = block.statistics_of(group_of(block, point))
        if statistics.tokens == 0:
            continue
        scale = best_scale(block, point, statistics, block.method)
        if scale is not None:
            apply(block, point, scale)


def best_scale(block: Block, point: FoldPoint, statistics: InputStatistics, method: Method) -> Tensor | None:
    """float32 (channels,): the best scale found; None where leaving the channels as they are is best.

    The loss of a matrix is its share of lost output energy, sum_j cost_j |w_j - q_j|^2 / tr(W H W^T).
    """
    cost = column_costs(statistics.gram, feedback=feeds_back(method))
    matrices = {n: (block.current[n], block.grids[n]) for n in point.targets if n in block.grids}
    energy = {n: _energy(w, statistics.gram) for n, (w, _) in matrices.items()}
    trial = {n: (_some_rows(w), g) for n, (w, g) in matrices.items()}
    unit = _unit(point, [g for _, g in matrices.values()])
    magnitude = torch.stack([(w.square() / w.square().mean().clamp_min(1e-30)).mean(0) for w, _ in matrices.values()])
    candidates = candidate_scales(point, statistics.importance, magnitude.mean(0), unit)
    share = {n: len(matrices[n][0]) / (len(w) * energy[n]) for n, (w, _) in trial.items()}
    losses = torch.stack([_loss(trial, point, s, cost, share, method.search, unit) for s in candidates])
    best = losses.argmin(0)
    if not bool(best.any()):  # the first is no scale at all
        return None
    return candidates[best.repeat_interleave(unit)[: point.channels], torch.arange(point.channels)]


def candidate_scales(point: FoldPoint, energy: Tensor, magnitude: Tensor, unit: int) -> Tensor:
    """float32 (1 + exponents, channels); the first is all ones. A unit's weights keep their mean square.

    Args:
        energy: (columns,) mean square of the inputs.
        magnitude: (columns,) mean square of the targets' weights.
        unit: channels in a row that are normalised together.
    """
    x, w = _floored(point.gather(energy).mean(-1)), _floored(point.gather(magnitude).mean(-1))
    found = [torch.ones(point.channels)]
    for a in EXPONENTS:
        scale = x ** (a / 2) / w ** ((1 - a) / 2)
        found.append(scale * (_unit_mean(w, unit) / _unit_mean(w * scale.square(), unit)).sqrt())
    return torch.stack(found)


def column_costs(gram: Tensor, *, feedback: bool) -> Tensor:
    """float32 (columns,): expected loss of a squared rounding error of one in a column.

    Rounding errors are independent of each other, so to nearest it is the diagonal of H. With error feedback it is D
    of H = (I + U) D (I + U)^T, U strictly upper triangular in the order the columns are visited: what the columns
    that are still to come can't make up for (QuIP, arXiv 2307.13304).
    """
    if not feedback:
        return gram.diagonal().clone()
    order = by_importance(gram)
    backwards, damp = order.flip(0), 0.01
    while True:
        lower, failed = torch.linalg.cholesky_ex(damped(gram, damp)[backwards][:, backwards].double())
        if not failed:
            break
        damp *= 3.0
    costs = torch.empty(len(gram))
    costs[backwards] = lower.diagonal().square().float()
    return costs


def feeds_back(method: Method) -> bool:
    """The method makes up for the rounding of one weight by that of others."""
    return method.solver is not round_to_nearest or method.refine is not None


def _loss(
    matrices: dict[str, tuple[Tensor, Grid]],
    point: FoldPoint,
    scale: Tensor,
    cost: Tensor,
    share: dict[str, float],
    search: Search,
    unit: int,
) -> Tensor:
    """float64 (units,): the loss that rounding leaves in each unit of channels, under a scale (channels,)."""
    columns = point.spread(scale)
    scaled_cost = cost / columns.square()
    per_column = torch.zeros(len(columns), dtype=torch.float64)
    importance = scaled_cost.clamp_min(1e-6 * float(scaled_cost.mean())).numpy()
    for name, (weight, grid) in matrices.items():
        scaled = (weight * columns).numpy()
        off = rounded(scaled, search(scaled, importance, grid), grid).dequantize()
        np.subtract(off, scaled, out=off)
        per_column += torch.from_numpy(off).square_().sum(0, dtype=torch.float64) * share[name]
    per_channel = point.gather(per_column * scaled_cost).sum(-1)
    padded = torch.nn.functional.pad(per_channel, (0, -len(per_channel) % unit))
    return padded.reshape(-1, unit).sum(1)


def _unit(point: FoldPoint, grids: Sequence[Grid]) -> int:
    """Channels in a row that share parameters of the grid with no others, so that they can be judged alone."""
    sizes = [g.super_size or g.group_size for g in grids]
    unit = 0 if -1 in sizes else math.lcm(*sizes)
    # Groups of columns that stand for several runs of channels must not run over a run's end.
    fits = unit and (point.repeat == 1 or point.run % unit == 0)
    return min(unit, point.channels) if fits else point.channels


def _some_rows(weight: Tensor) -> Tensor:
    step = max(1, len(weight) // ROWS)
    return weight[step // 2 :: step]


def _energy(weight: Tensor, gram: Tensor) -> float:
    """tr(W H W^T), the mean square of the layer's output."""
    return max(float(torch.einsum("rk,rk->", weight @ gram, weight)), 1e-30)


def _floored(magnitude: Tensor) -> Tensor:
    least = FLOOR**2 * float(magnitude.mean())
    return magnitude.clamp_min(least) if least > 0 else torch.ones_like(magnitude)


def _unit_mean(values: Tensor, unit: int) -> Tensor:
    """Each unit's mean, spread over its channels again."""
    padded = torch.nn.functional.pad(values, (0, -len(values) % unit)).reshape(-1, unit)
    counts = torch.nn.functional.pad(torch.ones_like(values), (0, -len(values) % unit)).reshape(-1, unit).sum(1)
    return (padded.sum(1) / counts).repeat_interleave(unit)[: len(values)]
