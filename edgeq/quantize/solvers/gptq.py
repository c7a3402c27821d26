"""GPTQ (arXiv 2210.17323): columns are rounded one after the other, each rounding's error compensated by the rest.

The grid's parameters are found first and stay fixed ("static groups"), so that columns may be visited in the order of
their importance, across and inside groups, without a permutation at run time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from edgeq.checkpoint.tensor import Parameters, QuantizedTensor
from edgeq.quantize.levels import Levels
from edgeq.quantize.solvers.descent import descend
from edgeq.quantize.solvers.hessian import (
    DAMP,
    Feedback,
    by_importance,
    damped,
    damping,
    feedback,
    gram_of,
    row_errors,
)
from edgeq.quantize.solvers.refit import refit
from edgeq.quantize.solvers.rtn import round_to_nearest
from edgeq.quantize.statistics import InputStatistics
from edgeq.scheme import Grid

if TYPE_CHECKING:
    from edgeq.quantize.methods.composition import Search

Tensor = torch.Tensor
Floats = npt.NDArray[np.float32]

BLOCK = 128  # columns whose mutual compensation is done one by one; what came before them is one matrix product
ROUNDS = 1  # of refit and descent
ROW_CHUNK = 1 << 22  # weights solved at once: rows are independent, and memory is bounded


def gptq(
    weight: Floats,
    statistics: InputStatistics | None,
    grid: Grid,
    search: Search,
    *,
    rounds: int = ROUNDS,
    damp: float | None = None,
) -> QuantizedTensor:
    """float32 (rows, columns) -> codes by GPTQ, on the parameters that `search` finds by the diagonal of the gram
    matrix, then `rounds` times a least-squares refit of the parameters and a sweep of coordinate descent on the codes.

    In (w - q) H (w - q)^T with the damped H no row ends worse than rounded to nearest on the parameters first found.
    `damp` is the share of the mean diagonal added to H; None: by the number of tokens.
    Without statistics (an expert that no token reached) it rounds to nearest.
    """
    if statistics is None or statistics.tokens == 0:
        return round_to_nearest(weight, None, grid, search)
    gram = gram_of(statistics, weight.shape[1])
    damp = damping(statistics) if damp is None else damp
    parameters = search(weight, importance_of(gram), grid)
    return compensated(weight, parameters, grid, gram, rounds=rounds, damp=damp)


def importance_of(gram: Tensor) -> Floats:
    """float32 (columns,): the diagonal; dead channels get a little, so that a group of them has a scale that fits."""
    diagonal = gram.diagonal()
    found: Floats = diagonal.clamp_min(1e-6 * float(diagonal.mean())).numpy()
    return found if found.any() else np.ones_like(found)


def compensated(
    weight: Floats,
    parameters: Parameters,
    grid: Grid,
    gram: Tensor,
    *,
    rounds: int = ROUNDS,
    damp: float = DAMP,
    first: Tensor | None = None,
) -> QuantizedTensor:
    """The solve from given parameters, in chunks of rows.

    Args:
        weight: float32 (rows, columns).
        gram: float32 (columns, columns).
        first: float32 (rows,): what the column of the greatest importance is rounded from, if not from itself.
    """
    rows, columns = weight.shape
    plan = feedback(gram, by_importance(gram), damp)
    firm = damped(gram, plan.damp)
    codes = np.empty((rows, columns), np.uint8)
    chunks = []
    step = max(1, ROW_CHUNK // columns)
    for a in range(0, rows, step):
        part = slice(a, min(a + step, rows))
        here = torch.from_numpy(np.ascontiguousarray(weight[part]))
        begin = None if first is None else first[part]
        found, fitted = _one_chunk(here, begin, parameters.rows(part), grid, plan, firm, rounds)
        codes[part] = found.numpy()
        chunks.append(fitted.arrays())
    joined = (None if arrays[0] is None else np.concatenate(arrays) for arrays in zip(*chunks, strict=True))
    return QuantizedTensor.of(grid, codes, Parameters(*joined))  # type: ignore[arg-type]


def _one_chunk(
    weight: Tensor,
    first: Tensor | None,
    parameters: Parameters,
    grid: Grid,
    plan: Feedback,
    firm: Tensor,
    rounds: int,
) -> tuple[Tensor, Parameters]:
    levels = Levels.of(grid, parameters, weight.shape[1])
    codes = _better(weight, solve(weight, levels, plan, first), levels.round(weight).to(torch.uint8), levels, firm)
    for _ in range(rounds):
        parameters = refit(weight, codes, parameters, grid, firm)
        codes = descend(weight, codes, Levels.of(grid, parameters, weight.shape[1]), firm)
    return codes, parameters


def _better(weight: Tensor, codes: Tensor, plain: Tensor, levels: Levels, gram: Tensor) -> Tensor:
    """Row by row `codes`, or `plain` where that has the lower objective (error feedback is greedy: it can lose)."""
    scale, offset = levels.spread(levels.scale), levels.spread(levels.offset)
    worse = [row_errors(weight, levels.values(c, scale, offset), gram) for c in (codes, plain)]
    return torch.where((worse[1] < worse[0])[:, None], plain, codes)


def solve(weight: Tensor, levels: Levels, plan: Feedback, first: Tensor | None = None) -> Tensor:
    """uint8 codes (rows, columns) of float32 weights; `first` as in `compensated`.

    Works transposed and in visiting order, so that a column of all rows lies together in memory.
    """
    columns = levels.columns
    groups = (plan.order // levels.group_size).tolist()
    scale, offset = levels.scale.T.contiguous(), levels.offset.T.contiguous()
    target = weight.T[plan.order]
    off = torch.empty_like(target)  # weight - quantized, of the columns visited
    codes = torch.empty(target.shape, dtype=torch.uint8)
    for a in range(0, columns, BLOCK):
        b = min(a + BLOCK, columns)
        moved = target[a:b] if a == 0 else torch.addmm(target[a:b], plan.upper[:a, a:b].T, off[:a])
        for j in range(a, b):
            wanted = moved[j - a] if j == a else torch.addmv(moved[j - a], off[a:j].T, plan.upper[a:j, j])
            if j == 0 and first is not None:
                wanted = first
            s, o = scale[groups[j]], offset[groups[j]]
            code = levels.nearest(wanted, s, o)
            codes[j] = code
            torch.sub(target[j], levels.values(code, s, o), out=off[j])
    out = torch.empty_like(codes)
    out[plan.order] = codes
    return out.T
