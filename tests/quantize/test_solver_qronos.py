"""Qronos against a slow float64 reference that follows the paper's steps on the inputs themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from edgeq.errors import EdgeqError
from edgeq.quantize.grids.uniform import search
from edgeq.quantize.levels import Levels
from edgeq.quantize.solvers.gptq import gptq, solve
from edgeq.quantize.solvers.hessian import by_importance, feedback
from edgeq.quantize.solvers.qronos import corrected, qronos
from edgeq.quantize.statistics import InputStatistics
from edgeq.scheme import int_grid

Array = npt.NDArray[Any]
COLUMNS, TOKENS = 24, 300


def streams(seed: int, noise: float = 0.2) -> tuple[Array, Array]:
    """The input of the float model and of the quantized one, float64 (tokens, columns)."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((COLUMNS, COLUMNS)) / 4 + np.eye(COLUMNS)
    x = rng.standard_normal((TOKENS, COLUMNS)) @ mixing * rng.lognormal(0, 0.5, COLUMNS)
    return x, x @ (np.eye(COLUMNS) + noise * rng.standard_normal((COLUMNS, COLUMNS)) / 5) + noise * rng.standard_normal(
        x.shape
    )


def statistics(x: Array, seen: Array) -> InputStatistics:
    z = torch.zeros(x.shape[1])
    gram, cross = (torch.from_numpy((a.T @ seen / len(x)).astype(np.float32)) for a in (seen, x))
    return InputStatistics(len(x), gram, z, z, z, z, z, cross)


def weights(rows: int, seed: int) -> npt.NDArray[np.float32]:
    return (np.random.default_rng(seed + 50).standard_normal((rows, COLUMNS)) * 0.05).astype(np.float32)


def paper(weight: Array, x: Array, seen: Array, order: Array, levels: Levels) -> Array:
    """Section 3's two steps for every column: the best level with the future weights held, then the future's best."""
    table = levels.table.double().numpy()
    scale, offset = (levels.spread(p).double().numpy() for p in (levels.scale, levels.offset))
    codes = np.zeros(weight.shape, np.int64)
    for row, w in enumerate(weight.astype(np.float64)):
        current = w.copy()  # quantized where visited, else the present float value
        for t, j in enumerate(order):
            others = x @ w - seen @ current + seen[:, j] * current[j]
            best = seen[:, j] @ others / (seen[:, j] @ seen[:, j])
            values = table * scale[row, j] + offset[row, j]
            codes[row, j] = np.abs(values - best).argmin()
            current[j] = values[codes[row, j]]
            future = order[t + 1 :]
            if len(future):
                rest = x @ w - seen[:, order[: t + 1]] @ current[order[: t + 1]]
                current[future] = np.linalg.lstsq(seen[:, future], rest, rcond=None)[0]
    return codes


@pytest.mark.parametrize("seed", range(4))
def test_the_codes_are_the_papers(seed: int) -> None:
    (x, seen), w = streams(seed), weights(5, seed)
    stats, grid = statistics(x, seen), int_grid(3, 8)
    levels = Levels.of(grid, search(w, None, grid), COLUMNS)
    order = by_importance(stats.gram)
    expected = paper(w, x, seen, order.numpy(), levels)
    target, first = corrected(torch.from_numpy(w), stats.gram, stats.cross, 1e-9)  # type: ignore[arg-type]
    plan = feedback(stats.gram, order, 1e-9)
    assert np.array_equal(solve(target, levels, plan, first).numpy(), expected)
    # Without the paper's rule for the first column, codes can only differ where that column's code does.
    simple = solve(target, levels, plan).numpy()
    same = simple[:, int(order[0])] == expected[:, int(order[0])]
    assert np.array_equal(simple[same], expected[same])


def test_the_first_column_is_the_only_difference() -> None:
    """Somewhere the two rules do disagree, so the test above does tell them apart."""
    differing = 0
    for seed in range(8):
        (x, seen), w = streams(seed, 0.6), weights(20, seed)
        stats, grid = statistics(x, seen), int_grid(3, 8)
        levels = Levels.of(grid, search(w, None, grid), COLUMNS)
        plan = feedback(stats.gram, by_importance(stats.gram), 1e-9)
        target, first = corrected(torch.from_numpy(w), stats.gram, stats.cross, 1e-9)  # type: ignore[arg-type]
        differing += int((solve(target, levels, plan) != solve(target, levels, plan, first)).sum())
    assert differing > 0


def test_the_target_is_the_damped_least_squares_solution() -> None:
    (x, seen), w = streams(1), weights(4, 1)
    stats = statistics(x, seen)
    assert stats.cross is not None
    damp = 0.05
    found, _ = corrected(torch.from_numpy(w), stats.gram, stats.cross, damp)
    ridge = np.sqrt(damp * float(stats.gram.diagonal().mean()) * TOKENS) * np.eye(COLUMNS)
    left, right = np.concatenate([seen, ridge]), np.concatenate([x, ridge])
    expected = np.linalg.lstsq(left, right @ w.T.astype(np.float64), rcond=None)[0].T
    assert np.allclose(found.numpy(), expected, atol=1e-5)


def output_error(w: Array, q: Array, x: Array, seen: Array) -> float:
    return float(np.square(x @ w.T.astype(np.float64) - seen @ q.T.astype(np.float64)).sum())


def test_nearer_to_the_float_output_than_gptq() -> None:
    for seed in range(3):
        (x, seen), w, grid = streams(seed), weights(16, seed), int_grid(4, 8)
        stats = statistics(x, seen)
        ours, theirs = (f(w, stats, grid, search).dequantize() for f in (qronos, gptq))
        assert output_error(w, ours, x, seen) < 0.9 * output_error(w, theirs, x, seen)


def test_the_same_input_gives_gptq() -> None:
    x, w, grid = streams(0)[0], weights(8, 0), int_grid(4, 8)
    stats = statistics(x, x)
    assert np.array_equal(qronos(w, replace(stats, cross=None), grid, search).codes, gptq(w, stats, grid, search).codes)
    off = qronos(w, stats, grid, search).dequantize() - gptq(w, stats, grid, search).dequantize()
    assert np.square(off).mean() < 0.1 * np.square(w).mean() / 15**2  # ties and the first column's rule aside


def test_dead_channels_keep_their_weights_and_few_tokens_do_no_harm() -> None:
    x, seen = streams(2)
    x, seen = x[:10].copy(), seen[:10].copy()
    x[:, 3] = seen[:, 3] = 0
    w, stats = weights(6, 2), statistics(x, seen)
    assert stats.cross is not None
    target, _ = corrected(torch.from_numpy(w), stats.gram, stats.cross)
    assert np.allclose(target[:, 3].numpy(), w[:, 3], atol=1e-6)
    q = qronos(w, stats, int_grid(4, 8), search)
    assert np.isfinite(q.dequantize()).all()
    assert np.array_equal(q.codes, qronos(w, stats, int_grid(4, 8), search).codes)


def test_bad_cross_statistics_are_refused() -> None:
    (x, seen), w = streams(0), weights(2, 0)
    stats = statistics(x, seen)
    for bad in (torch.zeros(3, 3), torch.full((COLUMNS, COLUMNS), float("nan"))):
        with pytest.raises(EdgeqError, match="don't fit"):
            qronos(w, replace(stats, cross=bad), int_grid(4, 8), search)
