"""The grid search against a slow exhaustive one in double precision, and against plain min-max."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.errors import EdgeqError
from edgeq.quantize.grids import groups
from edgeq.quantize.grids.uniform import min_max, search
from edgeq.quantize.solvers.rtn import rounded
from edgeq.scheme import Grid, int_grid

Floats = npt.NDArray[np.float32]


def weights(rows: int, columns: int, seed: int = 0) -> Floats:
    rng = np.random.default_rng(seed)
    heavy = rng.standard_t(4, (rows, columns)) * rng.lognormal(0, 0.5, (rows, 1)) + rng.normal(0, 0.3, (rows, 1))
    return (heavy * 0.02).astype(np.float32)


def error(w: Floats, q: QuantizedTensor, h: Floats | None = None) -> float:
    off = (q.dequantize().astype(np.float64) - w) ** 2
    return float((off * (1 if h is None else h)).sum())


def exhaustive(w: Floats, h: Floats, grid: Grid) -> float:
    """The least error over 400 scales and every zero point, group by group."""
    levels, middle, total = grid.levels, grid.levels // 2, 0.0
    size = grid.group_size
    for row in w.astype(np.float64):
        for a in range(0, len(row), size):
            g, weight = row[a : a + size], h[a : a + size].astype(np.float64)
            spread = np.abs(g).max() * 2.2 / (levels - 1)
            signs = (1, -1) if grid.symmetric else (1,)
            scales = np.float16([s * spread * r for r in np.linspace(0.15, 1.2, 400) for s in signs]).astype(float)
            zeros = np.array([middle] if grid.symmetric else range(levels))
            steps = np.rint(g[None, None] / scales[:, None, None])
            codes = np.clip(steps + zeros[None, :, None], 0, levels - 1) - zeros[None, :, None]
            total += float((((codes * scales[:, None, None] - g) ** 2) * weight).sum(-1).min())
    return total


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_as_good_as_an_exhaustive_search(bits: int, symmetric: bool) -> None:
    grid, w = int_grid(bits, 32, symmetric=symmetric), weights(6, 96)
    mild, wild = (np.random.default_rng(1).lognormal(0, sigma, 96).astype(np.float32) for sigma in (1, 2))
    for importance, within in ((None, 1.02), (mild, 1.02), (wild, 1.03)):
        found = error(w, rounded(w, search(w, importance, grid), grid), importance)
        best = exhaustive(w, np.ones(96, np.float32) if importance is None else importance, grid)
        assert found <= best * within


@settings(max_examples=60, deadline=None)
@given(
    bits=st.integers(2, 8),
    group=st.sampled_from([-1, 16, 32, 64, 128, 256]),
    symmetric=st.booleans(),
    columns=st.integers(1, 300),
    seed=st.integers(0, 1000),
    size=st.sampled_from([1e-9, 1e-3, 1.0, 1e3]),
    weighted=st.booleans(),
)
def test_never_worse_than_min_max(
    bits: int, group: int, symmetric: bool, columns: int, seed: int, size: float, weighted: bool
) -> None:
    grid = int_grid(bits, group, symmetric=symmetric)
    w = (weights(3, columns, seed) * size).astype(np.float32)
    h = np.random.default_rng(seed).lognormal(0, 1, columns).astype(np.float32) if weighted else None
    fine, plain = search(w, h, grid), min_max(w, grid)
    a, b = (error(w, rounded(w, p, grid), h) for p in (fine, plain))
    assert a <= b * (1 + 1e-4) + 1e-30
    q = rounded(w, fine, grid)
    assert q.codes.max() < grid.levels
    assert fine.scales.dtype == np.float16 and np.isfinite(fine.scales).all() and (fine.scales != 0).all()


@settings(max_examples=40, deadline=None)
@given(bits=st.integers(2, 8), symmetric=st.booleans(), seed=st.integers(0, 99))
def test_rounding_takes_the_nearest_value_of_the_grid(bits: int, symmetric: bool, seed: int) -> None:
    grid = int_grid(bits, 16, symmetric=symmetric)
    w = weights(4, 40, seed)
    q = rounded(w, search(w, None, grid), grid)
    scale, zero = np.repeat(q.scales.astype(float), 16, 1)[:, :40], grid.levels // 2
    zeros = zero if q.zero_points is None else np.repeat(q.zero_points.astype(float), 16, 1)[:, :40]
    values = (np.arange(grid.levels)[:, None, None] - zeros) * scale
    nearest = np.abs(values - w).min(0)
    assert np.allclose(np.abs(q.dequantize() - w), nearest, atol=1e-6 * np.abs(w).max())


def test_weights_on_the_grid_come_back_exactly() -> None:
    grid, rng = int_grid(4, 32), np.random.default_rng(0)
    codes = rng.integers(0, 16, (8, 64))
    codes[:, ::32], codes[:, 1::32] = 0, 15  # each group uses its whole range
    scales = np.repeat(rng.choice([2.0**-5, 2.0**-7], (8, 2)), 32, 1)
    w = ((codes - 6) * scales).astype(np.float32)
    assert np.array_equal(rounded(w, search(w, None, grid), grid).dequantize(), w)


def test_importance_moves_the_error_to_where_it_matters_less() -> None:
    grid, w = int_grid(3, 64), weights(20, 64)
    h = np.ones(64, np.float32)
    h[:8] = 1000
    off = [np.square(rounded(w, search(w, i, grid), grid).dequantize() - w)[:, :8].sum() for i in (h, None)]
    assert off[0] < off[1] * 0.8


def test_zero_groups_and_one_sided_groups() -> None:
    for symmetric in (False, True):
        grid = int_grid(4, 16, symmetric=symmetric)
        zeros = np.zeros((2, 32), np.float32)
        assert not rounded(zeros, search(zeros, None, grid), grid).dequantize().any()
        positive = np.abs(weights(2, 32)) + 1
        q = rounded(positive, search(positive, None, grid), grid)
        assert error(positive, q) < 0.05 * np.square(positive).sum()


def test_the_result_does_not_depend_on_threads_or_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    grid, w = int_grid(4, 32), weights(64, 100)
    found = []
    for threads, block in (("1", 1 << 16), ("3", 1 << 16), ("3", 1 << 9)):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        monkeypatch.setattr(groups, "BLOCK", block)
        found.append(search(w, None, grid))
    assert all(np.array_equal(found[0].scales, f.scales) for f in found)
    assert all(np.array_equal(found[0].zero_points, f.zero_points) for f in found)


def test_refuses_what_it_cannot_store() -> None:
    w = weights(4, 32)
    for grid in (int_grid(1, 32), int_grid(9, 32), Grid("float", 16), Grid(zero="float"), int_grid(4, 0)):
        with pytest.raises(EdgeqError, match="can't be quantized"):
            search(w, None, grid)
    with pytest.raises(EdgeqError, match="dimensions"):
        search(w[0], None, int_grid(4, 32))
    for bad in (np.nan, np.inf):
        w[1, 3] = bad
        with pytest.raises(EdgeqError, match="not finite"):
            search(w, None, int_grid(4, 32))
