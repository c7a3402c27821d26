"""The guard: no step may leave a layer worse than plain rounding would, and what each step did is written down.

A matrix is judged by the output error on its own inputs, E||Wx - Qx||^2 / E||Wx||^2, which the gram matrix
H = E[x x^T] gives as tr((W-Q) H (W-Q)^T) / tr(W H W^T). A method that works towards the unquantized model's inputs x'
(`cross`) is judged by what it works towards: E||Wx' - Qx||^2 / E||Wx'||^2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from edgeq.checkpoint.manifest import LayerReport
from edgeq.checkpoint.tensor import Parameters, QuantizedTensor
from edgeq.quantize.methods.composition import Method, Search
from edgeq.quantize.solvers.rtn import round_to_nearest, rounded
from edgeq.quantize.statistics import InputStatistics
from edgeq.scheme import Grid

Floats = npt.NDArray[np.float32]
ROWS = 4096  # of a matrix that are judged, evenly spaced: all of them up to this many
CHUNK = 1 << 22  # weights compared at once


@dataclass(frozen=True, slots=True)
class Judged:
    """Attributes:
    before, after: relative output errors of plain rounding and of what was taken.
    size: mean square of the output, which they are relative to.
    """

    before: float
    after: float
    size: float
    fallback: str | None = None

    def report(self) -> LayerReport:
        return LayerReport(self.before, self.after, self.fallback)


def guarded(
    method: Method, weight: Floats, grid: Grid, statistics: InputStatistics, energy: float | None = None
) -> tuple[QuantizedTensor, Judged]:
    """A matrix quantized by the method, or rounded to nearest where the method's answer is worse.

    Args:
        weight: float32 (rows, columns).
        energy: E||Wx'||^2, where the statistics have `cross`.

    Raises:
        EdgeqError: the grid takes no such matrix.
    """
    search = _Remembering(method.search)
    plain = method.solver is round_to_nearest
    found, why = None, None if statistics.tokens else "no calibration token reached it"
    if statistics.tokens and not plain:
        try:
            found = method.solver(weight, statistics, grid, search)
        except (LinAlgError, np.linalg.LinAlgError, FloatingPointError) as problem:
            why = f"{method.name} failed ({str(problem).splitlines()[0][:80]})"
    nearest = _nearest(weight, grid, statistics if statistics.tokens else None, search)
    off, size = output_error(weight, nearest, statistics, energy)
    before = _relative(off, size)
    if found is None:
        return nearest, Judged(before, before, size, why)
    after = _relative(output_error(weight, found, statistics, energy)[0], size)
    if _better(after, before) and _whole(found):
        return found, Judged(before, after, size)
    return nearest, Judged(before, before, size, f"{method.name} was worse ({after:.4g} > {before:.4g})")


def output_error(
    weight: Floats, quantized: QuantizedTensor, statistics: InputStatistics, energy: float | None = None
) -> tuple[float, float]:
    """Mean squares of the error of the layer's output, see above, and of the output.

    Of matrices with more than `ROWS` rows, every n-th is looked at.
    """
    every = slice(None, None, math.ceil(len(weight) / ROWS))
    weight, kept = weight[every], quantized.parameters.rows(every)
    codes = quantized.codes[every]
    off = size = 0.0
    step = max(1, CHUNK // weight.shape[1])
    for a in range(0, len(weight), step):
        part = slice(a, a + step)
        w = torch.from_numpy(np.ascontiguousarray(weight[part]))
        values = QuantizedTensor.of(quantized.grid, codes[part], kept.rows(part)).dequantize()
        q = torch.from_numpy(values)
        if statistics.cross is None or energy is None:
            off += _form(w - q, statistics.gram, w - q)
            size += _form(w, statistics.gram, w)
        else:
            # E||Wx' - Qx||^2 = E||Wx'||^2 - 2 tr(W C Q^T) + tr(Q H Q^T), C = E[x' x^T]
            off += _form(q, statistics.gram, q) - 2 * _form(w, statistics.cross, q)
    if statistics.cross is not None and energy is not None:
        size = energy * (len(weight) / len(quantized.codes))
        off += size
    return off, size


def _relative(off: float, size: float) -> float:
    if not math.isfinite(off):
        return math.inf
    return off / size if size > 0 else 0.0


def noted(reports: dict[str, LayerReport], fallback: str) -> dict[str, LayerReport]:
    """The reports of a block whose refinement was taken back."""
    return {n: replace(r, fallback=fallback if r.fallback is None else r.fallback) for n, r in reports.items()}


def _better(after: float, before: float) -> bool:
    return math.isfinite(after) and (after <= before or not math.isfinite(before))


def _whole(quantized: QuantizedTensor) -> bool:
    """Every parameter is finite."""
    arrays = (a for a in quantized.parameters.arrays() if a is not None)
    return all(bool(np.isfinite(a).all()) for a in arrays)


def _nearest(weight: Floats, grid: Grid, statistics: InputStatistics | None, search: _Remembering) -> QuantizedTensor:
    parameters = search.found(weight, grid)
    if parameters is not None:
        return rounded(weight, parameters, grid)
    return round_to_nearest(weight, statistics, grid, search)


def _form(a: torch.Tensor, h: torch.Tensor, b: torch.Tensor) -> float:
    """tr(A H B^T)."""
    return float((a @ h).mul_(b).sum(dtype=torch.float64))


class _Remembering:
    """A search that keeps its last answer: plain rounding is judged on the parameters that the method found."""

    def __init__(self, search: Search) -> None:
        self._search = search
        self._last: tuple[Floats, Grid, Parameters] | None = None

    def __call__(self, weight: Floats, importance: Floats | None, grid: Grid) -> Parameters:
        parameters = self._search(weight, importance, grid)
        self._last = (weight, grid, parameters)
        return parameters

    def found(self, weight: Floats, grid: Grid) -> Parameters | None:
        if self._last is None:
            return None
        last, its_grid, parameters = self._last
        same = its_grid == grid and last.shape == weight.shape and np.array_equal(last, weight)
        return parameters if same else None
