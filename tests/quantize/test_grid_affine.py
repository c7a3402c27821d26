"""The affine search against the true optimum over all codes, in double precision, and against plain min-max."""

from __future__ import annotations

from itertools import combinations_with_replacement, pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.errors import EdgeqError
from edgeq.quantize.grids import groups
from edgeq.quantize.grids.affine import min_max, refuses, search
from edgeq.quantize.solvers.rtn import rounded
from edgeq.scheme import GGML_GRIDS, Grid, affine_grid, int_grid

Floats = npt.NDArray[np.float32]


def weights(rows: int, columns: int, seed: int = 0) -> Floats:
    rng = np.random.default_rng(seed)
    heavy = rng.standard_t(4, (rows, columns)) * rng.lognormal(0, 0.5, (rows, 1)) + rng.normal(0, 0.3, (rows, 1))
    return (heavy * 0.1).astype(np.float32)


def importances(columns: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).lognormal(0, 1.5, columns).astype(np.float32)


def error(w: Floats, q: QuantizedTensor, h: Floats | None = None) -> float:
    off = (q.dequantize().astype(np.float64) - w) ** 2
    return float((off * (1 if h is None else h)).sum())


def optimum(w: Floats, h: Floats, bits: int) -> float:
    """The least error of one group for any real scale and minimum. Codes of ascending weights ascend, so all
    ascending sequences of codes are tried, each with its weighted line fit."""
    order = np.argsort(w)
    x, weight = w[order].astype(np.float64), h[order].astype(np.float64)
    codes = np.array(list(combinations_with_replacement(range(1 << bits), len(w))), np.float64)
    mass = weight.sum()
    centred = codes - (codes * weight).sum(1, keepdims=True) / mass
    x = x - (x * weight).sum() / mass
    along, second = (centred * x * weight).sum(1), (centred**2 * weight).sum(1)
    explained = np.divide(along**2, second, out=np.zeros_like(along), where=second > 0)
    return float((x * x * weight).sum() - explained.max())


@pytest.mark.parametrize(("bits", "size"), [(2, 8), (2, 12), (3, 8)])
def test_finds_the_optimum_over_all_codes(bits: int, size: int) -> None:
    grid, w, h = affine_grid(bits, size), weights(12, size * 4, bits), importances(size * 4)
    for importance in (np.ones_like(h), h):
        found = error(w, rounded(w, search(w, importance, grid), grid), importance)
        parts = [slice(a, a + size) for a in range(0, w.shape[1], size)]
        best = sum(optimum(row[p], importance[p], bits) for row in w for p in parts)
        assert best * (1 - 1e-6) <= found <= best * 1.02


@settings(max_examples=60, deadline=None)
@given(
    bits=st.integers(2, 8),
    group=st.sampled_from([-1, 16, 32, 64, 128, 256]),
    columns=st.integers(1, 300),
    seed=st.integers(0, 1000),
    size=st.sampled_from([1e-9, 1e-3, 1.0, 1e3]),
    offset=st.sampled_from([0.0, 0.5, -20.0]),
    weighted=st.booleans(),
)
def test_never_worse_than_min_max(
    bits: int, group: int, columns: int, seed: int, size: float, offset: float, weighted: bool
) -> None:
    grid = affine_grid(bits, group)
    w = ((weights(3, columns, seed) + offset) * size).astype(np.float32)
    h = importances(columns, seed) if weighted else None
    fine, plain = search(w, h, grid), min_max(w, grid)
    a, b = (error(w, rounded(w, p, grid), h) for p in (fine, plain))
    assert a <= b * (1 + 1e-4) + 1e-30
    q = rounded(w, fine, grid)
    assert q.codes.max() < grid.levels
    assert fine.scales.dtype == np.float16 and np.isfinite(fine.scales).all() and (fine.scales > 0).all()
    assert fine.zero_points is not None
    assert fine.zero_points.dtype == np.float16 and np.isfinite(fine.zero_points).all()


def test_the_float_minimum_beats_an_integer_zero_point_and_plain_min_max_by_far() -> None:
    from edgeq.quantize.grids import uniform

    w, h = weights(64, 256), importances(256)
    h[::32] *= 300  # a few channels carry most of the energy
    affine, integer = affine_grid(4, 32), int_grid(4, 32)
    found = error(w, rounded(w, search(w, h, affine), affine), h)
    assert found < 0.75 * error(w, rounded(w, uniform.search(w, h, integer), integer), h)
    assert found < 0.5 * error(w, rounded(w, min_max(w, affine), affine), h)


def test_more_bits_and_smaller_groups_never_lose() -> None:
    w, h = weights(16, 256), importances(256)
    by_bits = [error(w, rounded(w, search(w, h, affine_grid(b, 32)), affine_grid(b, 32)), h) for b in range(2, 9)]
    assert all(b < a * 0.5 for a, b in pairwise(by_bits))
    by_group = [error(w, rounded(w, search(w, h, affine_grid(3, g)), affine_grid(3, g)), h) for g in (128, 64, 32, 16)]
    assert all(b < a for a, b in pairwise(by_group))


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weights_on_the_grid_come_back_exactly(bits: int) -> None:
    grid, rng = affine_grid(bits, 32), np.random.default_rng(0)
    codes = rng.integers(0, 1 << bits, (8, 64))
    codes[:, ::32], codes[:, 1::32] = 0, (1 << bits) - 1  # each group uses its whole range
    scales = np.repeat(rng.choice([2.0**-5, 2.0**-7], (8, 2)), 32, 1)
    minima = np.repeat(rng.choice([-0.75, 0.25], (8, 2)), 32, 1)
    w = (codes * scales + minima).astype(np.float32)
    assert np.array_equal(rounded(w, search(w, importances(64), grid), grid).dequantize(), w)


def test_importance_moves_the_error_to_where_it_matters_less() -> None:
    grid, w = affine_grid(3, 64), weights(20, 64)
    h = np.ones(64, np.float32)
    h[:8] = 1000
    off = [np.square(rounded(w, search(w, i, grid), grid).dequantize() - w)[:, :8].sum() for i in (h, None)]
    assert off[0] < off[1] * 0.3


def test_constant_zero_and_dead_groups() -> None:
    grid = affine_grid(4, 16)
    for value in (0.0, 0.5, -3.0):
        w = np.full((2, 40), value, np.float32)
        assert np.array_equal(rounded(w, search(w, None, grid), grid).dequantize(), w)
    w, dead = weights(4, 40), importances(40)
    dead[:16] = 0  # a group that no calibration input reached keeps sensible weights
    q = rounded(w, search(w, dead, grid), grid)
    assert np.abs(q.dequantize() - w)[:, :16].max() < np.ptp(w[:, :16]) / 15
    for h in (np.zeros(40, np.float32), None):
        assert np.array_equal(search(w, h, grid).scales, search(w, None, grid).scales)


def test_importance_counts_by_its_proportions_only() -> None:
    grid, w, h = affine_grid(4, 32), weights(8, 64), importances(64)
    for factor in (1e-12, 1e12):
        p, scaled = search(w, h, grid), search(w, (h * np.float32(factor)).astype(np.float32), grid)
        a, b = (error(w, rounded(w, x, grid), h) for x in (p, scaled))
        assert a == pytest.approx(b, rel=1e-2)


def test_the_result_does_not_depend_on_threads_or_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    grid, w, h = affine_grid(4, 32), weights(64, 100), importances(100)
    found = []
    for threads, block in (("1", 1 << 16), ("3", 1 << 16), ("3", 1 << 9)):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        monkeypatch.setattr(groups, "BLOCK", block)
        found.append(search(w, h, grid))
    assert all(np.array_equal(found[0].scales, f.scales) for f in found)
    assert all(np.array_equal(found[0].zero_points, f.zero_points) for f in found)


def test_refuses_what_it_cannot_store() -> None:
    w = weights(4, 32)
    for grid in (affine_grid(1, 32), affine_grid(9, 32), Grid("float", 16), int_grid(4, 32), GGML_GRIDS["Q4_K"]):
        with pytest.raises(EdgeqError, match="can't be quantized"):
            search(w, None, grid)
    with pytest.raises(EdgeqError, match="dimensions"):
        search(w[0], None, affine_grid(4, 32))
    assert refuses(GGML_GRIDS["Q4_1"], (4, 64)) is None
    assert "multiple of 32" in str(refuses(GGML_GRIDS["Q4_1"], (4, 48)))
    for h in (np.full(32, -1, np.float32), np.full(32, np.nan, np.float32), np.ones(31, np.float32)):
        with pytest.raises(EdgeqError, match="importance"):
            search(w, h, affine_grid(4, 32))
    for bad in (np.nan, np.inf):
        w[1, 3] = bad
        with pytest.raises(EdgeqError, match="not finite"):
            search(w, None, affine_grid(4, 32))
