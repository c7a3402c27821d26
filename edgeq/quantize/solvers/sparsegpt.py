"""SparseGPT (arXiv 2301.00774): prune weights, and round what is left, with the error of both compensated.

A block's mask is chosen when the error feedback reaches it, from the weights as they then are: the ones whose loss
costs least when all columns after them compensate, `w^2 / [H^-1]_jj`, where H is that of the columns not yet visited.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from edgeq.checkpoint.codebooks import codebook
from edgeq.checkpoint.tensor import Parameters, QuantizedTensor
from edgeq.errors import EdgeqError
from edgeq.quantize.levels import Levels
from edgeq.quantize.solvers.descent import descend
from edgeq.quantize.solvers.gptq import ROUNDS, ROW_CHUNK, importance_of
from edgeq.quantize.solvers.hessian import DAMP, Feedback, damped, damping, feedback, gram_of
from edgeq.quantize.solvers.refit import refit
from edgeq.quantize.statistics import InputStatistics
from edgeq.scheme import Grid

if TYPE_CHECKING:
    from edgeq.quantize.methods.composition import Search

Tensor = torch.Tensor
Floats = npt.NDArray[np.float32]
Keep = Callable[[int, Tensor], Tensor]  # (column, what its kept weights should be) -> what they become

BLOCK = 128  # columns of one mask choice, and of one matrix product
POLISH = 4  # sweeps over float weights after pruning


@dataclass(frozen=True, slots=True)
class Sparsity:
    """Attributes:
    share: of the weights that become zero.
    of: None: anywhere in a block of columns; else that share of every `of` consecutive columns of a row (4: 2:4).
    """

    share: float = 0.5
    of: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise EdgeqError(f"a sparsity of {self.share}", hint="Choose 0 or more, and less than 1")
        if self.of is not None and (BLOCK % self.of or (self.share * self.of) % 1):
            raise EdgeqError(f"{self.share:g} of every {self.of} weights can't be pruned", hint="Try half of every 4")


def sparsegpt(
    weight: Floats,
    statistics: InputStatistics | None,
    grid: Grid,
    search: Search,
    *,
    sparsity: Sparsity = Sparsity(),
    rounds: int = ROUNDS,
    damp: float | None = None,
) -> QuantizedTensor:
    """float32 (rows, columns) -> codes on the grid, a share of which stand for exact zeros.

    Kept weights are rounded to the grid as they are visited; then the scales are refitted and the kept codes descend,
    as in `gptq`. Without statistics the smallest weights are pruned and the others rounded to nearest.

    Raises:
        EdgeqError: the grid has no exact zero, or the columns are no multiple of the pattern's.
    """
    why = refuses(grid, sparsity, weight.shape[1])
    if why:
        raise EdgeqError(f"this weight can't be pruned: {why}")
    rows, columns = weight.shape
    gram = _gram(statistics, columns)
    parameters = search(weight, importance_of(gram), grid)
    plan, firm = _factored(gram, statistics, damp)
    codes = np.empty((rows, columns), np.uint8)
    chunks = []
    for part in _chunks(rows, columns):
        here = torch.from_numpy(np.ascontiguousarray(weight[part]))
        found, fitted = _on_grid(here, parameters.rows(part), grid, plan, firm, sparsity, rounds)
        codes[part] = found.numpy()
        chunks.append(fitted.arrays())
    joined = (None if arrays[0] is None else np.concatenate(arrays) for arrays in zip(*chunks, strict=True))
    return QuantizedTensor.of(grid, codes, Parameters(*joined))  # type: ignore[arg-type]


def prune(
    weight: Floats,
    statistics: InputStatistics | None,
    sparsity: Sparsity = Sparsity(),
    damp: float | None = None,
) -> Floats:
    """float32 (rows, columns) -> the same with a share of exact zeros, and the others moved to make up for them.

    Raises:
        EdgeqError: the columns are no multiple of the pattern's.
    """
    rows, columns = weight.shape
    why = _refuses_columns(sparsity, columns)
    if why:
        raise EdgeqError(f"this weight can't be pruned: {why}")
    gram = _gram(statistics, columns)
    plan, firm = _factored(gram, statistics, damp)
    out = np.empty((rows, columns), np.float32)
    for part in _chunks(rows, columns):
        here = torch.from_numpy(np.ascontiguousarray(weight[part]))
        kept, values = visit(here, plan, sparsity, lambda _, wanted: wanted)
        out[part] = _polished(here, values, kept, firm).numpy()
    return out


def refuses(grid: Grid, sparsity: Sparsity, columns: int) -> str | None:
    """Why a weight can't be pruned on this grid, or None when it can."""
    if grid.kind == "float":
        return "a float grid has no codes (use `prune`)"
    if grid.zero == "float":
        return "its grid has a float minimum, so no code stands for an exact zero"
    if grid.codebook is not None and not (codebook(grid.codebook) == 0).any():
        return f"the codebook {grid.codebook} holds no zero"
    return _refuses_columns(sparsity, columns)


def _refuses_columns(sparsity: Sparsity, columns: int) -> str | None:
    if sparsity.of is not None and columns % sparsity.of:
        return f"{columns} columns are no multiple of {sparsity.of}"
    return None


def _gram(statistics: InputStatistics | None, columns: int) -> Tensor:
    if statistics is None or statistics.tokens == 0:
        return torch.eye(columns)
    return gram_of(statistics, columns)


def _factored(gram: Tensor, statistics: InputStatistics | None, damp: float | None) -> tuple[Feedback, Tensor]:
    if damp is None:
        damp = DAMP if statistics is None else damping(statistics)
    plan = feedback(gram, None, damp)
    return plan, damped(gram, plan.damp)


def _chunks(rows: int, columns: int) -> list[slice]:
    step = max(1, ROW_CHUNK // columns)
    return [slice(a, min(a + step, rows)) for a in range(0, rows, step)]


def _on_grid(
    weight: Tensor,
    parameters: Parameters,
    grid: Grid,
    plan: Feedback,
    firm: Tensor,
    sparsity: Sparsity,
    rounds: int,
) -> tuple[Tensor, Parameters]:
    rows, columns = weight.shape
    levels = Levels.of(grid, parameters, columns)
    scale, offset = levels.scale.T.contiguous(), levels.offset.T.contiguous()
    codes = torch.empty(columns, rows, dtype=torch.uint8)

    def rounded(j: int, wanted: Tensor) -> Tensor:
        s, o = scale[j // levels.group_size], offset[j // levels.group_size]
        code = levels.nearest(wanted, s, o)
        codes[j] = code
        return levels.values(code, s, o)

    kept, _ = visit(weight, plan, sparsity, rounded)
    found = torch.where(kept, codes.T, _zero_codes(grid, parameters, levels))
    for _ in range(rounds):
        parameters = refit(weight, found, parameters, grid, firm, zero_points=False)  # a pruned code is a zero point
        found = descend(weight, found, Levels.of(grid, parameters, columns), firm, free=kept)
    return found, parameters


def _zero_codes(grid: Grid, parameters: Parameters, levels: Levels) -> Tensor:
    """uint8, broadcasts to (rows, columns): the code of an exact zero."""
    if grid.codebook is not None:
        return (levels.table == 0).nonzero()[0].to(torch.uint8)
    if parameters.zero_points is None:
        return torch.tensor(grid.levels >> 1, dtype=torch.uint8)
    return levels.spread(torch.from_numpy(parameters.zero_points))


def visit(weight: Tensor, plan: Feedback, sparsity: Sparsity, keep: Keep) -> tuple[Tensor, Tensor]:
    """Prune and keep column by column, in natural order.

    Returns:
        bool (rows, columns), the weights that are kept, and float32 (rows, columns), their values and zeros.
    """
    rows, columns = weight.shape
    target, upper = weight.T.contiguous(), plan.upper
    off, kept = torch.empty_like(target), torch.empty(columns, rows, dtype=torch.bool)
    gone = 0
    for a in range(0, columns, BLOCK):
        b = min(a + BLOCK, columns)
        moved = target[a:b] if a == 0 else torch.addmm(target[a:b], upper[:a, a:b].T, off[:a])
        if sparsity.of is None:
            total = round(sparsity.share * rows * b)
            kept[a:b] = _kept_anywhere(_cost(moved, target, plan, slice(a, b)), total - gone)
            gone = total
        for j in range(a, b):
            if sparsity.of is not None and j % sparsity.of == 0:
                few = slice(j, j + sparsity.of)
                here = torch.addmm(moved[j - a : j - a + sparsity.of], upper[a:j, few].T, off[a:j])
                kept[few] = _kept_of_few(_cost(here, target, plan, few), round(sparsity.share * sparsity.of))
            wanted = moved[j - a] if j == a else torch.addmv(moved[j - a], off[a:j].T, upper[a:j, j])
            off[j] = target[j] - torch.where(kept[j], keep(j, wanted), torch.zeros_like(wanted))
    return kept.T, torch.where(kept, target - off, torch.zeros_like(off)).T


def _cost(moved: Tensor, target: Tensor, plan: Feedback, part: slice) -> Tensor:
    """What pruning each weight of some columns costs, (columns, rows).

    `moved` compensates for the columns before these; the present best value of a column also takes into account that
    the ones before it, in this part, move to theirs: a triangular system.
    """
    inner = plan.upper[part, part].T
    off = torch.linalg.solve_triangular(inner, target[part] - moved, upper=False, unitriangular=True)
    cost: Tensor = (target[part] - off).square() * plan.pivots[part, None]
    return cost


def _kept_anywhere(cost: Tensor, gone: int) -> Tensor:
    order = cost.flatten().argsort(stable=True)
    kept = torch.ones(cost.numel(), dtype=torch.bool)
    kept[order[:gone]] = False
    return kept.view_as(cost)


def _kept_of_few(cost: Tensor, gone: int) -> Tensor:
    kept: Tensor = cost.argsort(dim=0, stable=True).argsort(dim=0) >= gone
    return kept


def _polished(weight: Tensor, values: Tensor, kept: Tensor, gram: Tensor) -> Tensor:
    """Kept float weights moved to their best values, one after the other: never increases the objective."""
    out, may = values.T.contiguous(), kept.T.to(torch.float32)
    off = weight.T - out
    for _ in range(POLISH):
        for a in range(0, len(out), BLOCK):
            b = min(a + BLOCK, len(out))
            gradient = gram[a:b] @ off
            steps = torch.zeros_like(gradient)
            for j in range(a, b):
                slope = torch.addmv(gradient[j - a], steps[: j - a].T, gram[a:j, j], alpha=-1)
                torch.mul(slope / gram[j, j], may[j], out=steps[j - a])
            out[a:b] += steps
            off[a:b] -= steps
    return out.T
