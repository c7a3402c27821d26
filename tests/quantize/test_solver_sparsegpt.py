"""SparseGPT against a slow float64 reference with explicit inverses, and its sparsity exactly as asked."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.errors import EdgeqError
from edgeq.quantize.grids.uniform import search
from edgeq.quantize.levels import Levels
from edgeq.quantize.methods.sparsegpt import sparsegpt as half
from edgeq.quantize.methods.sparsegpt import sparsegpt_2_4
from edgeq.quantize.solvers import sparsegpt as module
from edgeq.quantize.solvers.gptq import gptq
from edgeq.quantize.solvers.hessian import damped, feedback
from edgeq.quantize.solvers.sparsegpt import Sparsity, prune, sparsegpt, visit
from edgeq.quantize.statistics import InputStatistics
from edgeq.scheme import F16, Grid, affine_grid, codebook_grid, int_grid

Array = npt.NDArray[Any]
ANYWHERE, PAIRS = Sparsity(0.5), Sparsity(0.5, of=4)


def statistics(columns: int, tokens: int, seed: int) -> InputStatistics:
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((columns, columns)) / np.sqrt(columns) + np.eye(columns)
    x = rng.standard_normal((tokens, columns)) @ mixing * rng.lognormal(0, 0.7, columns)
    z = torch.zeros(columns)
    return InputStatistics(tokens, torch.from_numpy((x.T @ x / tokens).astype(np.float32)), z, z, z, z, z)


def weights(rows: int, columns: int, seed: int) -> npt.NDArray[np.float32]:
    return (np.random.default_rng(seed + 10).standard_normal((rows, columns)) * 0.05).astype(np.float32)


def paper(weight: Array, gram: Array, sparsity: Sparsity, block: int, levels: Levels | None) -> tuple[Array, Array]:
    """Algorithm 1 of the paper: mask a block at a time, columns frozen and compensated one by one.

    Returns the mask of kept weights and the values.
    """
    w = weight.astype(np.float64).copy()
    rows, columns = w.shape
    kept = np.ones(w.shape, bool)
    step = sparsity.of or block
    for j in range(columns):
        inverse = np.linalg.inv(gram[j:, j:].astype(np.float64))  # of the columns not yet frozen
        if j % step == 0:
            here = slice(j, min(j + step, columns))
            cost = np.empty((rows, here.stop - j))
            for c in range(j, here.stop):  # its own remaining inverse for every column of the choice
                cost[:, c - j] = w[:, c] ** 2 / np.linalg.inv(gram[c:, c:].astype(np.float64))[0, 0]
            if sparsity.of is None:
                gone = round(sparsity.share * rows * here.stop) - round(sparsity.share * rows * j)
                flat = np.ones(cost.T.size, bool)
                flat[np.argsort(cost.T, axis=None, kind="stable")[:gone]] = False
                kept[:, here] = flat.reshape(cost.T.shape).T
            else:
                rank = cost.argsort(1).argsort(1)
                kept[:, here] = rank >= round(sparsity.share * sparsity.of)
        value = w[:, j].copy()
        if levels is not None:
            scale, offset = (p[:, j // levels.group_size].double().numpy() for p in (levels.scale, levels.offset))
            table = levels.table.double().numpy() * scale[:, None] + offset[:, None]
            value = np.take_along_axis(table, np.abs(table - value[:, None]).argmin(1)[:, None], 1)[:, 0]
        value = np.where(kept[:, j], value, 0)
        w[:, j:] -= np.outer((w[:, j] - value) / inverse[0, 0], inverse[0])
        w[:, j] = value
    return kept, w


@pytest.mark.parametrize("sparsity", [ANYWHERE, PAIRS, Sparsity(0.3), Sparsity(0.25, of=8)], ids=str)
@pytest.mark.parametrize("grid", [None, int_grid(4, 16)], ids=str)
def test_the_mask_and_the_values_are_the_papers(
    sparsity: Sparsity, grid: Grid | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK", 16)
    w, gram = weights(6, 48, 1), statistics(48, 300, 1).gram
    levels = None if grid is None else Levels.of(grid, search(w, None, grid), 48)
    kept, values = paper(w, damped(gram, 0.01).numpy(), sparsity, 16, levels)

    def keep(j: int, wanted: torch.Tensor) -> torch.Tensor:
        if levels is None:
            return wanted
        s, o = levels.scale[:, j // 16], levels.offset[:, j // 16]
        return levels.values(levels.nearest(wanted, s, o), s, o)

    mask, found = visit(torch.from_numpy(w), feedback(gram, None, 0.01), sparsity, keep)
    assert np.array_equal(mask.numpy(), kept)
    assert np.allclose(found.numpy(), values, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    share=st.sampled_from([0.0, 0.2, 0.5, 0.9]),
    rows=st.integers(1, 8),
    columns=st.integers(1, 200),
    tokens=st.integers(1, 80),
    seed=st.integers(0, 30),
)
def test_exactly_the_share_asked_for_is_zero(share: float, rows: int, columns: int, tokens: int, seed: int) -> None:
    w, stats = weights(rows, columns, seed), statistics(columns, tokens, seed)
    out = prune(w, stats, Sparsity(share))
    assert (out == 0).sum() == round(share * rows * columns)
    assert np.isfinite(out).all()
    grid = int_grid(4, 32)
    q = sparsegpt(w, stats, grid, search, sparsity=Sparsity(share))
    assert (q.dequantize() == 0).sum() >= round(share * rows * columns)
    assert q.codes.max() < grid.levels
    assert np.array_equal(q.codes, sparsegpt(w, stats, grid, search, sparsity=Sparsity(share)).codes)


GRIDS = [int_grid(4, 32), int_grid(3, -1, symmetric=True), codebook_grid("nf4", 32), codebook_grid("ternary", 32)]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_two_of_every_four_are_zero(grid: Grid) -> None:
    from edgeq.quantize.grids import find

    w, stats = weights(8, 96, 3), statistics(96, 400, 3)
    for q in (sparsegpt_2_4.quantize(w, grid, stats).dequantize(), prune(w, stats, PAIRS)):
        assert ((q == 0).reshape(8, 24, 4).sum(2) >= 2).all()
    anywhere = half.quantize(w, grid, stats)
    assert (anywhere.dequantize() == 0).mean() >= 0.5
    dense = gptq(w, stats, grid, find)
    if grid.codebook != "ternary":
        assert (dense.dequantize() == 0).mean() < 0.5


def error(w: Array, q: Array, stats: InputStatistics) -> float:
    off = w.astype(np.float64) - q
    return float(((off @ damped(stats.gram, 0.01).double().numpy()) * off).sum())


def test_better_than_pruning_the_smallest_and_refined_further() -> None:
    w, stats, grid = weights(16, 128, 4), statistics(128, 600, 4), int_grid(4, 32)
    for sparsity in (ANYWHERE, PAIRS):
        magnitude = prune(w, None, sparsity)
        assert set(np.unique(np.abs(magnitude - w)[magnitude != 0])) == {0}  # nothing to compensate with
        assert error(w, prune(w, stats, sparsity), stats) < 0.7 * error(w, magnitude, stats)
        steps = [
            error(w, sparsegpt(w, stats, grid, search, sparsity=sparsity, rounds=n).dequantize(), stats)
            for n in (0, 1, 2)
        ]
        assert steps[2] < steps[1] < steps[0]


def test_polishing_ends_at_the_best_values_of_the_kept_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLISH", 400)
    w, stats = weights(3, 40, 5), statistics(40, 300, 5)
    out = prune(w, stats, damp=0.01)
    gram = damped(stats.gram, 0.01).double().numpy()
    for row in range(3):
        kept = out[row] != 0
        best = np.linalg.solve(gram[np.ix_(kept, kept)], gram[kept] @ w[row].astype(np.float64))
        assert np.allclose(out[row][kept], best, atol=1e-4)


def test_what_cannot_be_pruned_is_refused() -> None:
    w, stats = weights(2, 30, 0), statistics(30, 60, 0)
    with pytest.raises(EdgeqError, match="float minimum"):
        sparsegpt(w, stats, affine_grid(4, 32), search)
    with pytest.raises(EdgeqError, match="holds no zero"):
        sparsegpt(w, stats, Grid("codebook", 4, 32, "none", codebook="iq4_nl"), search)
    with pytest.raises(EdgeqError, match="use `prune`"):
        sparsegpt(w, stats, F16, search)
    with pytest.raises(EdgeqError, match="no multiple of 4"):
        prune(w, stats, PAIRS)
    for share, of in ((1.0, None), (-0.1, None), (0.3, 4), (0.5, 7)):
        with pytest.raises(EdgeqError):
            Sparsity(share, of)
