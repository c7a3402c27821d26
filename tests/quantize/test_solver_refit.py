"""Coordinate descent and the least-squares refit against exhaustive and float64 references, on every kind of grid."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.checkpoint.tensor import Parameters, QuantizedTensor
from edgeq.quantize.levels import Levels
from edgeq.quantize.solvers import descent
from edgeq.quantize.solvers import refit as module
from edgeq.quantize.solvers.descent import descend
from edgeq.quantize.solvers.refit import refit
from edgeq.scheme import GGML_GRIDS, Grid, affine_grid, codebook_grid, int_grid

Array = npt.NDArray[Any]

PLAIN = [
    int_grid(4, 16),
    int_grid(3, 32, symmetric=True),
    affine_grid(4, 32),
    affine_grid(2, -1),
    codebook_grid("nf4", 16),
]
SUPER = [
    Grid("gguf", 4, 16, "float", "f16", "Q4_K", None, 64, 6),
    Grid("gguf", 3, 16, "none", "f16", "Q3_K", None, 64, 6),
    codebook_grid("nf4", 32, double=True),
    GGML_GRIDS["IQ4_XS"],
]
GRIDS = PLAIN + SUPER


def problem(
    grid: Grid, rows: int, columns: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor, Parameters, torch.Tensor]:
    """Weight, codes, parameters (crude ones) and a gram matrix."""
    rng = np.random.default_rng(seed)
    weight = (rng.standard_normal((rows, columns)) * 0.05).astype(np.float32)
    x = rng.standard_normal((2 * columns + 5, columns)) @ (rng.standard_normal((columns, columns)) + np.eye(columns))
    gram = (x.T @ x / len(x)).astype(np.float32)
    groups = 1 if grid.group_size == -1 else -(-columns // grid.group_size)
    step = 0.3 / (grid.levels if grid.codebook is None else 4 if grid.codebook == "nf4" else 400)
    if grid.super_size is None:
        scales = (step * rng.uniform(0.7, 1.4, (rows, groups))).astype(np.float16)
        zeros: Array | None = None
        if grid.zero == "int":
            zeros = rng.integers(0, grid.levels, (rows, groups)).astype(np.uint8)
        elif grid.zero == "float":
            zeros = rng.uniform(-0.2, 0, (rows, groups)).astype(np.float16)
        parameters = Parameters(scales, zeros)
    else:
        supers = 1 if grid.super_size == -1 else -(-columns // grid.super_size)
        top = 1 << (grid.scale_bits - 1)
        one = np.full((rows, supers), step / top * 1.5, np.float16)
        if grid.symmetric:
            parameters = Parameters(rng.integers(1, top, (rows, groups)).astype(np.int8), None, one)
        else:
            codes = [rng.integers(1, 2 * top, (rows, groups)).astype(np.uint8) for _ in range(2)]
            parameters = Parameters(codes[0], codes[1], one, np.full((rows, supers), 0.2 / top, np.float16))
    w = torch.from_numpy(weight)
    return w, Levels.of(grid, parameters, columns).round(w).to(torch.uint8), parameters, torch.from_numpy(gram)


def errors(weight: torch.Tensor, codes: torch.Tensor, parameters: Parameters, grid: Grid, gram: torch.Tensor) -> Array:
    off = weight.numpy() - QuantizedTensor.of(grid, codes.numpy(), parameters).dequantize().astype(np.float64)
    found: Array = np.einsum("rk,kl,rl->r", off, gram.numpy().astype(np.float64), off)
    return found


@settings(max_examples=80, deadline=None)
@given(grid=st.sampled_from(GRIDS), columns=st.integers(1, 140), seed=st.integers(0, 99))
def test_neither_step_increases_any_rows_objective(grid: Grid, columns: int, seed: int) -> None:
    weight, codes, parameters, gram = problem(grid, 4, columns, seed)
    before = errors(weight, codes, parameters, grid, gram)
    for _ in range(2):
        parameters = refit(weight, codes, parameters, grid, gram)
        after = errors(weight, codes, parameters, grid, gram)
        assert (after <= before * (1 + 1e-4) + 1e-9).all()
        codes = descend(weight, codes, Levels.of(grid, parameters, columns), gram)
        before, last = errors(weight, codes, parameters, grid, gram), after
        assert (before <= last * (1 + 1e-4) + 1e-9).all()
    assert int(codes.max()) < grid.levels


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_descent_ends_where_no_single_code_can_improve(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descent, "BLOCK", 16)
    columns = 70
    weight, codes, parameters, gram = problem(grid, 3, columns, 1)
    levels = Levels.of(grid, parameters, columns)
    codes = descend(weight, codes, levels, gram, sweeps=60)
    values = levels.values(
        torch.arange(len(levels.table))[:, None, None], levels.spread(levels.scale), levels.spread(levels.offset)
    )
    q = levels.values(codes, levels.spread(levels.scale), levels.spread(levels.offset)).double()
    off = weight.double() - q
    best = torch.einsum("rk,kl,rl->r", off, gram.double(), off)
    for j, level in product(range(columns), range(len(levels.table))):
        trial = off.clone()
        trial[:, j] = weight[:, j].double() - values[level, :, j].double()
        other = torch.einsum("rk,kl,rl->r", trial, gram.double(), trial)
        assert bool((other >= best * (1 - 1e-4)).all()), (j, level)


@pytest.mark.parametrize("grid", PLAIN, ids=str)
def test_scales_and_minima_are_the_least_squares_solution(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32 storage and without a ridge: against lstsq on the square root of H."""
    monkeypatch.setattr(module, "RIDGE", 0.0)
    grid = replace(grid, scale_dtype="f32")
    columns = 80  # ragged for groups of 32
    weight, codes, parameters, gram = problem(grid, 3, columns, 2)
    parameters = replace(parameters, scales=parameters.scales.astype(np.float32))
    if grid.zero == "float":
        assert parameters.zero_points is not None
        parameters = replace(parameters, zero_points=parameters.zero_points.astype(np.float32))
    found = module._floats(weight, codes, parameters, grid, gram)
    root = np.linalg.cholesky(gram.numpy().astype(np.float64)).T
    size = columns if grid.group_size == -1 else grid.group_size
    for r in range(3):
        level = Levels.of(grid, parameters, columns).table[codes[r].long()].double().numpy()
        if grid.zero == "int":
            assert parameters.zero_points is not None
            level = level - np.repeat(parameters.zero_points[r].astype(float), size)[:columns]
        elif grid.codebook is None and grid.symmetric:
            level = level - grid.levels // 2
        member = (np.arange(columns)[:, None] // size == np.arange(found.scales.shape[1])).astype(float)
        basis = member * level[:, None]
        if grid.zero == "float":
            basis = np.concatenate([basis, member], 1)
        expected = np.linalg.lstsq(root @ basis, root @ weight[r].double().numpy(), rcond=None)[0]
        got = found.scales[r] if grid.zero != "float" else np.concatenate([found.scales[r], found.zero_points[r]])
        assert np.allclose(got, expected, rtol=2e-3, atol=1e-5)


def test_a_weight_made_of_these_codes_is_found_exactly() -> None:
    """Only the floats are wrong: one refit brings the error to what half precision leaves."""
    for grid in GRIDS:
        _, codes, parameters, gram = problem(grid, 4, 128, 3)
        true = QuantizedTensor.of(grid, codes.numpy(), parameters).dequantize()
        w = torch.from_numpy(true)
        off = {n: (a.astype(np.float32) * 1.1).astype(np.float16) for n, a in _floats_of(parameters).items()}
        wrong = replace(parameters, **off)
        before = errors(w, codes, wrong, grid, gram)
        after = errors(w, codes, refit(w, codes, wrong, grid, gram), grid, gram)
        assert (after < 1e-3 * before).all(), grid


def _floats_of(p: Parameters) -> dict[str, Array]:
    names = ("scales", "zero_points", "super_scales", "super_zeros")
    return {n: a for n, a in zip(names, p.arrays(), strict=True) if a is not None and a.dtype == np.float16}


@pytest.mark.parametrize("grid", [g for g in GRIDS if g.zero == "int" or g.super_size is not None], ids=str)
def test_integers_are_improved_too(grid: Grid) -> None:
    """Zero points, and codes of sub-scales and sub-minima, move where that pays, and stay in range."""
    weight, codes, parameters, gram = problem(grid, 6, 256, 4)
    found = module._integers(weight, codes, parameters, grid, gram)
    assert (errors(weight, codes, found, grid, gram) < errors(weight, codes, parameters, grid, gram)).all()
    top = 1 << grid.scale_bits if grid.super_size is not None else grid.levels
    for array in (found.scales, found.zero_points):
        if array is not None and array.dtype != np.float16:
            assert array.max() < top and array.min() >= (-top // 2 if grid.symmetric else 0)


def test_what_the_data_do_not_determine_stays() -> None:
    grid = affine_grid(4, 32)
    weight, codes, parameters, gram = problem(grid, 4, 64, 5)
    gram[32:] = 0
    gram[:, 32:] = 0
    found = refit(weight, codes, parameters, grid, gram)
    assert found.zero_points is not None and parameters.zero_points is not None
    assert np.array_equal(found.scales[:, 1], parameters.scales[:, 1])
    assert np.array_equal(found.zero_points[:, 1], parameters.zero_points[:, 1])
    assert not np.array_equal(found.scales[:, 0], parameters.scales[:, 0])
