"""GPTQ against a slow float64 reference written from the paper, and what must hold on any grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.checkpoint.tensor import Parameters, QuantizedTensor
from edgeq.errors import EdgeqError
from edgeq.quantize.grids.uniform import search
from edgeq.quantize.levels import Levels
from edgeq.quantize.solvers import gptq as module
from edgeq.quantize.solvers.gptq import gptq, importance_of, solve
from edgeq.quantize.solvers.hessian import by_importance, damped, damping, feedback
from edgeq.quantize.solvers.rtn import rounded
from edgeq.quantize.statistics import InputStatistics
from edgeq.scheme import Grid, affine_grid, codebook_grid, int_grid

Array = npt.NDArray[Any]


def statistics(x: Array) -> InputStatistics:
    """Of inputs (tokens, columns)."""
    t = torch.from_numpy(x.astype(np.float32))
    gram = (t.T.double() @ t.double() / len(t)).float()
    a = t.abs()
    return InputStatistics(len(t), gram, a.amax(0), a.mean(0), t.mean(0), t.amin(0), t.amax(0))


def inputs(tokens: int, columns: int, seed: int = 0) -> Array:
    """Correlated, with channels of very different energy."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((columns, columns)) / np.sqrt(columns) + np.eye(columns)
    return (rng.standard_normal((tokens, columns)) @ mixing) * rng.lognormal(0, 1, columns)


def weights(rows: int, columns: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return (np.random.default_rng(seed + 100).standard_normal((rows, columns)) * 0.05).astype(np.float32)


def affine(weight: npt.NDArray[np.float32], grid: Grid) -> Parameters:
    """Scale and minimum of each group's range."""
    size = weight.shape[1] if grid.group_size == -1 else grid.group_size
    starts = range(0, weight.shape[1], size)
    low = np.stack([weight[:, a : a + size].min(1) for a in starts], 1)
    high = np.stack([weight[:, a : a + size].max(1) for a in starts], 1)
    scale = np.maximum((high - low) / (grid.levels - 1), 1e-6)
    return Parameters(scale.astype(np.float16), low.astype(np.float16))


def absolute(weight: npt.NDArray[np.float32], grid: Grid) -> Parameters:
    """Scales of a codebook whose ends are near one."""
    size = weight.shape[1] if grid.group_size == -1 else grid.group_size
    top = np.stack([np.abs(weight[:, a : a + size]).max(1) for a in range(0, weight.shape[1], size)], 1)
    return Parameters(np.maximum(top, 1e-6).astype(np.float16))


def find(weight: npt.NDArray[np.float32], importance: Array | None, grid: Grid) -> Parameters:
    """Parameters for any of the grids tested here."""
    if grid.codebook is not None:
        return absolute(weight, grid)
    return affine(weight, grid) if grid.zero == "float" else search(weight, importance, grid)


def paper(weight: Array, gram: Array, order: Array, levels: Levels) -> tuple[Array, Array]:
    """Algorithm 1 without its blocks, with the inverse's rows and columns removed one by one (its equations 2 and 3).

    Returns codes, and the least distance of any value from the middle between two levels (in steps).
    """
    w = weight.astype(np.float64)[:, order].copy()
    inverse = np.linalg.inv(gram.astype(np.float64)[np.ix_(order, order)])
    table = levels.table.double().numpy()
    scale = levels.spread(levels.scale).double().numpy()[:, order]
    offset = levels.spread(levels.offset).double().numpy()[:, order]
    codes, margin = np.zeros(w.shape, np.int64), np.inf
    for j in range(w.shape[1]):
        distance = np.abs(w[:, j, None] - (table * scale[:, j, None] + offset[:, j, None])) / np.abs(scale[:, j, None])
        codes[:, j] = distance.argmin(1)
        two = np.sort(distance, 1)[:, :2]
        margin = min(margin, (two[:, 1] - two[:, 0]).min())
        error = w[:, j] - (table[codes[:, j]] * scale[:, j] + offset[:, j])
        w -= np.outer(error / inverse[j, j], inverse[j])
        inverse -= np.outer(inverse[:, j], inverse[j]) / inverse[j, j]
        inverse[j, j] = 1.0  # gone: never read again, its row and column are zero
    out = np.empty_like(codes)
    out[:, order] = codes
    return out, np.array(margin)


GRIDS = [
    int_grid(4, 32),
    int_grid(3, 16, symmetric=True),
    int_grid(2, -1),
    affine_grid(4, 32),
    codebook_grid("nf4", 16),
]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("act_order", [True, False])
def test_the_codes_are_the_papers(grid: Grid, act_order: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 16)
    w, stats = weights(6, 72), statistics(inputs(400, 72))
    parameters = find(w, stats.importance.numpy(), grid)
    order = by_importance(stats.gram) if act_order else torch.arange(72)
    expected, margin = paper(w, damped(stats.gram, 0.01).numpy(), order.numpy(), Levels.of(grid, parameters, 72))
    assert margin > 1e-4, "a tie: choose another seed"
    found = solve(torch.from_numpy(w), Levels.of(grid, parameters, 72), feedback(stats.gram, order, 0.01))
    assert np.array_equal(found.numpy(), expected)


def objective(w: Array, q: QuantizedTensor, gram: torch.Tensor) -> float:
    off = w.astype(np.float64) - q.dequantize()
    return float(((off @ gram.double().numpy()) * off).sum())


@settings(max_examples=40, deadline=None)
@given(
    columns=st.integers(1, 150),
    tokens=st.integers(1, 200),
    bits=st.integers(2, 6),
    group=st.sampled_from([-1, 16, 32, 64]),
    seed=st.integers(0, 50),
    dead=st.integers(0, 5),
)
def test_any_problem_gives_codes_of_the_grid(
    columns: int, tokens: int, bits: int, group: int, seed: int, dead: int
) -> None:
    """One column, ragged groups, fewer tokens than columns, dead channels: twice the same codes, all on the grid."""
    x, grid = inputs(tokens, columns, seed), int_grid(bits, group)
    x[:, :dead] = 0
    w, stats = weights(4, columns, seed), statistics(x)
    q = gptq(w, stats, grid, search)
    assert q.codes.max() < grid.levels and np.isfinite(q.dequantize()).all()
    assert np.array_equal(q.codes, gptq(w, stats, grid, search).codes)
    dead = min(dead, columns)
    off = np.abs(q.dequantize() - w)[:, :dead]
    assert np.allclose(off, np.abs(rounded(w, q.parameters, grid).dequantize() - w)[:, :dead], atol=1e-5)


def test_correlated_inputs_are_compensated() -> None:
    w, stats = weights(32, 128), statistics(inputs(600, 128))
    for grid in GRIDS:
        plain = rounded(w, find(w, stats.importance.numpy(), grid), grid)
        errors = [objective(w, gptq(w, stats, grid, find, rounds=n), stats.gram) for n in (0, 1, 3)]
        assert errors[0] < 0.8 * objective(w, plain, stats.gram)
        assert errors[2] < errors[1] < 0.97 * errors[0]


@settings(max_examples=40, deadline=None)
@given(
    columns=st.integers(1, 100),
    tokens=st.integers(1, 100),
    grid=st.sampled_from(GRIDS),
    rounds=st.integers(0, 2),
    seed=st.integers(0, 50),
)
def test_no_row_is_worse_than_rounded_to_nearest(columns: int, tokens: int, grid: Grid, rounds: int, seed: int) -> None:
    w, stats = weights(5, columns, seed), statistics(inputs(tokens, columns, seed))
    plain = rounded(w, find(w, importance_of(stats.gram), grid), grid)
    gram = damped(stats.gram, 0.01).double().numpy()
    solved, nearest = (
        np.einsum("rk,kl,rl->r", off, gram, off)
        for off in (
            w - q.dequantize().astype(np.float64) for q in (gptq(w, stats, grid, find, rounds=rounds, damp=0.01), plain)
        )
    )
    assert (solved <= nearest * (1 + 1e-4) + 1e-12).all()


def test_independent_inputs_leave_nothing_to_compensate() -> None:
    w, stats = weights(8, 64), statistics(inputs(100, 64))
    stats.gram = torch.diag(stats.gram.diagonal())
    q = gptq(w, stats, int_grid(4, 32), search, rounds=0)
    assert np.array_equal(q.codes, rounded(w, q.parameters, q.grid).codes)


def test_rows_do_not_depend_on_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    w, stats, grid = weights(50, 96), statistics(inputs(300, 96)), int_grid(4, 32)
    whole = gptq(w, stats, grid, search)
    monkeypatch.setattr(module, "ROW_CHUNK", 7 * 96)
    differing = (whole.codes != gptq(w, stats, grid, search).codes).mean()
    assert differing < 1e-3  # a matrix product of another shape may round otherwise, which may turn a tie


def test_the_damping_rises_until_a_singular_matrix_is_factored() -> None:
    x = inputs(3, 64).astype(np.float32)
    gram = torch.from_numpy(x.T @ x / 3)
    gram[0, 1] = gram[1, 0] = 2 * float(gram.diagonal().max())  # rounding at its worst: not even semidefinite
    plan = feedback(gram, None, 1e-6)
    assert plan.damp > 1e-2 and bool(torch.isfinite(plan.upper).all())


def test_the_fewer_tokens_a_channel_has_the_more_is_damped() -> None:
    stats = statistics(inputs(8, 64))
    found = []
    for tokens in (1 << 20, 640, 256, 1):
        stats.tokens = tokens
        found.append(damping(stats))
    assert found[0] == 0.01 and found[1] == pytest.approx(0.05) and found[2:] == [0.125, 0.2]


def test_without_tokens_it_rounds_to_nearest() -> None:
    w, stats, grid = weights(4, 40), statistics(inputs(10, 40)), int_grid(4, 32)
    stats.tokens = 0
    plain = rounded(w, search(w, None, grid), grid)
    for none in (None, stats):
        assert np.array_equal(gptq(w, none, grid, search).codes, plain.codes)


def test_bad_statistics_are_refused() -> None:
    w, stats = weights(4, 40), statistics(inputs(50, 48))
    with pytest.raises(EdgeqError, match="48 input channels for a weight with 40"):
        gptq(w, stats, int_grid(4, 32), search)
    stats = statistics(inputs(50, 40))
    stats.gram[3, 3] = float("inf")
    with pytest.raises(EdgeqError, match="not finite"):
        gptq(w, stats, int_grid(4, 32), search)
