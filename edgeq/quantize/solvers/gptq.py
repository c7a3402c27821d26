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
from edgeq.quantize.solvers.hessian import Feedback, by_importance, feedback, gram_of
from edgeq.quantize.solvers.rtn import round_to_nearest
from edgeq.quantize.statistics import InputStatistics
from edgeq.scheme import Grid

if TYPE_CHECKING:
    from edgeq.quantize.methods.composition import Search

Tensor = torch.Tensor
Floats = npt.NDArray[np.float32]

BLOCK = 128  # columns whose mutual compensation is done one by one; what came before them is one matrix product
ROW_CHUNK = 1 << 24  # weights solved at once: rows are independent, and memory is bounded


def gptq(weight: Floats, statistics: InputStatistics | None, grid: Grid, search: Search) -> QuantizedTensor:
    """float32 (rows, columns) -> codes by GPTQ on the parameters that `search` finds by the diagonal of the gram
    matrix. Without statistics (an expert that no token reached) it rounds to nearest."""
    if statistics is None or statistics.tokens == 0:
        return round_to_nearest(weight, None, grid, search)
    columns = weight.shape[1]
    gram = gram_of(statistics, columns)
    parameters = search(weight, importance_of(gram), grid)
    codes = compensated(weight, parameters, grid, feedback(gram, by_importance(gram)))
    return QuantizedTensor.of(grid, codes, parameters)


def importance_of(gram: Tensor) -> Floats:
    """float32 (columns,): the diagonal; dead channels get a little, so that a group of them has a scale that fits."""
    diagonal = gram.diagonal()
    found: Floats = diagonal.clamp_min(1e-6 * float(diagonal.mean())).numpy()
    return found if found.any() else np.ones_like(found)


def compensated(weight: Floats, parameters: Parameters, grid: Grid, plan: Feedback) -> npt.NDArray[np.uint8]:
    """uint8 codes (rows, columns) by error feedback, in chunks of rows."""
    rows, columns = weight.shape
    codes = np.empty((rows, columns), np.uint8)
    step = max(1, ROW_CHUNK // columns)
    for a in range(0, rows, step):
        part = slice(a, min(a + step, rows))
        levels = Levels.of(grid, parameters.rows(part), columns)
        codes[part] = solve(torch.from_numpy(np.ascontiguousarray(weight[part])), levels, plan).numpy()
    return codes


def solve(weight: Tensor, levels: Levels, plan: Feedback) -> Tensor:
    """uint8 codes (rows, columns) of float32 weights.

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
            s, o = scale[groups[j]], offset[groups[j]]
            code = levels.nearest(wanted, s, o)
            codes[j] = code
            torch.sub(target[j], levels.values(code, s, o), out=off[j])
    out = torch.empty_like(codes)
    out[plan.order] = codes
    return out.T
