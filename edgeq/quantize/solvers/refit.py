"""Least-squares refit of a grid's parameters for given codes, under the full gram matrix.

Given codes, a dequantized row is linear in its stored floats: scales (and minima) of groups, or super-scales (and
super-zeros) of super-blocks. Their best values solve the normal equations of (w - q) H (w - q)^T, one small system a
row. What remains are integers, zero points and codes of sub-scales, which coordinate descent improves one by one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import pad

from edgeq.checkpoint.codebooks import codebook
from edgeq.checkpoint.tensor import Parameters, QuantizedTensor
from edgeq.quantize.levels import Levels
from edgeq.quantize.solvers.descent import descend_integers
from edgeq.quantize.solvers.hessian import row_errors
from edgeq.scheme import Grid

Tensor = torch.Tensor

RIDGE = 1e-4  # of each parameter's curvature: pulls towards the present value what the data hardly determine
SYSTEMS_BYTES = 1 << 25  # of the normal equations solved at once


@dataclass(frozen=True, slots=True)
class _Linear:
    """q = a * first + b * second, `first` and `second` one number a segment of `size` columns.

    Attributes:
        a, b: float32 (rows, columns); `b` None on grids without minima.
        first, second: float32 (rows, segments), the present values.
    """

    a: Tensor
    b: Tensor | None
    first: Tensor
    second: Tensor | None
    size: int


def refit(
    weight: Tensor, codes: Tensor, parameters: Parameters, grid: Grid, gram: Tensor, *, zero_points: bool = True
) -> Parameters:
    """Parameters of a lower objective for the same codes; rows where rounding to the stored dtype spoils it stay.

    Args:
        weight: float32 (rows, columns).
        codes: uint8 (rows, columns).
        gram: float32 (columns, columns), positive semidefinite.
        zero_points: integer zero points may move.
    """
    found = _floats(weight, codes, parameters, grid, gram)
    if zero_points or grid.zero != "int":
        found = _integers(weight, codes, found, grid, gram)
    before, after = (
        row_errors(weight, _dequantized(codes, p, grid), gram) for p in (parameters, found)
    )  # not a number compares as not better
    keep = (after < before).numpy()[:, None]
    return Parameters(
        *(
            None if new is None or old is None else np.where(keep, new, old)
            for new, old in zip(found.arrays(), parameters.arrays(), strict=True)
        )  # type: ignore[arg-type]
    )


def _dequantized(codes: Tensor, parameters: Parameters, grid: Grid) -> Tensor:
    return torch.from_numpy(QuantizedTensor.of(grid, codes.numpy(), parameters).dequantize())


def _floats(weight: Tensor, codes: Tensor, parameters: Parameters, grid: Grid, gram: Tensor) -> Parameters:
    """The stored floats by the normal equations."""
    model = _linear(codes, parameters, grid)
    first, second = _solve(weight, model, gram)
    signed = torch.where(first * model.first > 0, first, model.first)  # a scale neither vanishes nor turns round
    if parameters.super_scales is not None:
        zeros = None if second is None else _stored(second, parameters.super_zeros)
        return replace(parameters, super_scales=_stored(signed, parameters.super_scales), super_zeros=zeros)
    zeros = parameters.zero_points if second is None else _stored(second, parameters.zero_points)
    return replace(parameters, scales=_stored(signed, parameters.scales), zero_points=zeros)


def _stored(value: Tensor, like: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
    """In the dtype of `like`; its own values where that dtype can't hold the new ones."""
    assert like is not None
    with np.errstate(over="ignore"):
        out = value.numpy().astype(like.dtype)
    return np.where(np.isfinite(out), out, like)


def _linear(codes: Tensor, parameters: Parameters, grid: Grid) -> _Linear:
    columns = codes.shape[1]
    group = columns if grid.group_size == -1 else grid.group_size
    table = None if grid.codebook is None else torch.from_numpy(codebook(grid.codebook))
    a = codes.to(torch.float32) if table is None else table[codes.long()]
    b: Tensor | None = None
    if grid.zero == "int":
        a = a - _spread(parameters.zero_points, group, columns)
    elif grid.zero == "none" and table is None:
        a = a - (grid.levels >> 1)
    elif grid.zero == "float":
        b = torch.ones_like(a)
    if parameters.super_scales is None:
        second = None if b is None else _float(parameters.zero_points)
        return _Linear(a, b, _float(parameters.scales), second, group)
    a = a * _spread(parameters.scales, group, columns)
    b = None if b is None else -_spread(parameters.zero_points, group, columns)
    second = None if b is None else _float(parameters.super_zeros)
    size = columns if grid.super_size in (None, -1) else grid.super_size
    assert size is not None
    return _Linear(a, b, _float(parameters.super_scales), second, size)


def _float(array: npt.NDArray[Any] | None) -> Tensor:
    assert array is not None
    return torch.from_numpy(array.astype(np.float32))


def _spread(array: npt.NDArray[Any] | None, size: int, columns: int) -> Tensor:
    return _float(array).repeat_interleave(size, dim=1)[:, :columns]


def _solve(weight: Tensor, model: _Linear, gram: Tensor) -> tuple[Tensor, Tensor | None]:
    """The segments' best `first` and `second`, float32 (rows, segments), near the present ones where undetermined."""
    segments = model.first.shape[1]
    rest = -weight.shape[1] % model.size
    gram = pad(gram, (0, rest, 0, rest)) if rest else gram
    unknowns = segments * (1 if model.b is None else 2)
    step = max(1, SYSTEMS_BYTES // (8 * unknowns * unknowns))
    bases = [pad(basis, (0, rest)) for basis in (model.a, model.b) if basis is not None]
    present = torch.cat([p for p in (model.first, model.second) if p is not None], 1)
    weight = pad(weight, (0, rest))
    out = torch.empty_like(present)
    for r in range(0, len(weight), step):
        part = slice(r, r + step)
        matrix, right = _normal_equations(weight[part], [basis[part] for basis in bases], gram, model.size)
        out[part] = _nearby(matrix, right, present[part].double()).float()
    return (out, None) if model.b is None else (out[:, :segments], out[:, segments:])


def _normal_equations(weight: Tensor, bases: list[Tensor], gram: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """float64 (rows, n, n) and (rows, n), n = bases * segments: basis_s H basis_t^T and basis_s H w^T."""
    rows, segments = len(weight), len(gram) // size
    matrix = torch.zeros(rows, len(bases), segments, len(bases), segments, dtype=torch.float64)
    right = torch.empty(rows, len(bases), segments, dtype=torch.float64)
    seen = weight @ gram
    for i, basis in enumerate(bases):
        right[:, i] = (basis * seen).view(rows, segments, size).sum(2)
        for s in range(segments):
            a = s * size
            through = basis[:, a : a + size] @ gram[a : a + size]
            for j, other in enumerate(bases[i:], i):
                start = a if i == j else 0  # symmetric: the upper triangle suffices
                product = (through[:, start:] * other[:, start:]).view(rows, -1, size).sum(2)
                matrix[:, i, s, j, start // size :] = product
    n = len(bases) * segments
    upper = matrix.view(rows, n, n)
    return upper.triu() + upper.triu(1).transpose(1, 2), right.view(rows, n)


def _nearby(matrix: Tensor, right: Tensor, present: Tensor) -> Tensor:
    """The solution of the ridge problem that is centred on the present values."""
    diagonal = matrix.diagonal(dim1=1, dim2=2)
    ridge = RIDGE * diagonal + 1e-9 * diagonal.mean(1, keepdim=True) + 1e-30
    rest = right - torch.einsum("rij,rj->ri", matrix, present)
    matrix.diagonal(dim1=1, dim2=2).add_(ridge)
    factor, failed = torch.linalg.cholesky_ex(matrix)
    change = torch.cholesky_solve(rest.unsqueeze(2), factor).squeeze(2)
    usable = (failed == 0) & torch.isfinite(change).all(1)
    return present + torch.where(usable[:, None], change, torch.zeros_like(change))


def _integers(weight: Tensor, codes: Tensor, parameters: Parameters, grid: Grid, gram: Tensor) -> Parameters:
    """Integer zero points, codes of sub-scales and of sub-minima, each by one pass of coordinate descent."""
    supers = parameters.super_scales is not None
    if grid.zero != "int" and not supers:
        return parameters
    columns = codes.shape[1]
    group = columns if grid.group_size == -1 else grid.group_size
    off = (weight - _dequantized(codes, parameters, grid)).T.contiguous()

    def moved(values: npt.NDArray[Any] | None, direction: Tensor, low: int, high: int) -> npt.NDArray[Any]:
        assert values is not None
        out = descend_integers(off, direction.T.contiguous(), _float(values).T, group, gram, low, high)
        return out.T.numpy().astype(values.dtype)

    if not supers:
        zeros = moved(parameters.zero_points, -_spread(parameters.scales, group, columns), 0, grid.levels - 1)
        return replace(parameters, zero_points=zeros)
    size = columns if grid.super_size in (None, -1) else grid.super_size
    assert size is not None
    level = Levels.of(grid, parameters, columns)
    a = level.table[codes.long()] - (grid.levels >> 1 if grid.symmetric and grid.codebook is None else 0)
    top = 1 << grid.scale_bits
    low, high = (1 - top // 2, top // 2 - 1) if grid.symmetric else (0, top - 1)
    low = min(low, int(parameters.scales.min()))  # some formats have one more below
    scales = moved(parameters.scales, a * _spread(parameters.super_scales, size, columns), low, high)
    if grid.symmetric:
        return replace(parameters, scales=scales)
    minima = moved(parameters.zero_points, -_spread(parameters.super_zeros, size, columns), 0, top - 1)
    return replace(parameters, scales=scales, zero_points=minima)
