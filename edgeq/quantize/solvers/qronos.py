"""Qronos (arXiv 2505.11695): match the float model's output although the layer reads the quantized model's input.

The objective is ||W X - Q X~||^2: X is what the layer reads in the float model, X~ what it reads after the layers
before it are quantized. With G = E[x x~^T] and H = E[x~ x~^T] its unrestricted minimum is V = W G H^-1, and up to a
constant it is (v - q) H (v - q)^T a row: error feedback and all that follows work from V instead of W.

The paper's algorithm rounds the first column with the others held at W, then moves all others to their best values
and goes on as GPTQ. Those best values are what error feedback from V gives for that first code; so the paper's codes
are those of error feedback from V but for the value that the first column is rounded from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.errors import EdgeqError
from edgeq.quantize.solvers.gptq import ROUNDS, compensated, gptq, importance_of
from edgeq.quantize.solvers.hessian import DAMP, by_importance, damped, damping, factored, gram_of
from edgeq.quantize.statistics import InputStatistics
from edgeq.scheme import Grid

if TYPE_CHECKING:
    from edgeq.quantize.methods.composition import Search

Tensor = torch.Tensor
Floats = npt.NDArray[np.float32]


def qronos(
    weight: Floats,
    statistics: InputStatistics | None,
    grid: Grid,
    search: Search,
    *,
    rounds: int = ROUNDS,
    damp: float | None = None,
) -> QuantizedTensor:
    """float32 (rows, columns) -> codes by Qronos, refined as in `gptq`.

    Where the layer reads the same in both models (no `cross`) it is GPTQ.

    Raises:
        EdgeqError: `cross` has not the shape of the gram matrix, or is not finite.
    """
    if statistics is None or statistics.tokens == 0 or statistics.cross is None:
        return gptq(weight, statistics, grid, search, rounds=rounds, damp=damp)
    damp = damping(statistics) if damp is None else damp
    gram, cross = gram_of(statistics, weight.shape[1]), statistics.cross
    if cross.shape != gram.shape or not torch.isfinite(cross.sum()):
        raise EdgeqError("the statistics of the float model's input don't fit", hint="The calibration went wrong")
    target, first = corrected(torch.from_numpy(np.ascontiguousarray(weight)), gram, cross, damp)
    wanted = np.ascontiguousarray(target.numpy())
    parameters = search(wanted, importance_of(gram), grid)
    return compensated(wanted, parameters, grid, gram, rounds=rounds, damp=damp, first=first)


def corrected(weight: Tensor, gram: Tensor, cross: Tensor, damp: float = DAMP) -> tuple[Tensor, Tensor]:
    """V = W G H^-1, float32 (rows, columns), and what the paper rounds the most important column from, (rows,).

    G and H both get GPTQ's damping on their diagonals, which gives the minimum of
    ||W X - V X~||^2 + damp ||W - V||^2: near W where the text says little, and a dead channel keeps its weight.
    """
    lower, damp = factored(gram, damp)
    firm = damped(gram, damp)
    aim = weight @ cross + weight * (firm.diagonal() - gram.diagonal())
    target = torch.cholesky_solve(aim.T.to(lower.dtype), lower).T.float()
    j = int(by_importance(gram)[0])
    others = weight @ firm[:, j] - weight[:, j] * firm[j, j]
    return target, (aim[:, j] - others) / firm[j, j]
