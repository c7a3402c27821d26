"""HQQ against its definition written out in double precision, group by group."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.checkpoint.tensor import Parameters
from edgeq.errors import EdgeqError
from edgeq.quantize import grids
from edgeq.quantize.grids.hqq import search
from edgeq.quantize.methods.hqq import hqq
from edgeq.quantize.solvers.rtn import rounded
from edgeq.scheme import GGML_GRIDS, Grid, affine_grid, codebook_grid, int_grid

Floats = npt.NDArray[np.float32]


def weights(rows: int, columns: int, seed: int = 0) -> Floats:
    rng = np.random.default_rng(seed)
    return (rng.standard_t(3, (rows, columns)) * 0.02).astype(np.float32)


def lp(w: Floats, grid: Grid, parameters: Parameters) -> npt.NDArray[np.float64]:
    """sum |w - dequantized|**0.7 of each row of one group, in steps of the scale."""
    q = rounded(w, parameters, grid)
    off = np.abs(q.dequantize().astype(np.float64) - w) / q.scales.astype(np.float64)
    found: npt.NDArray[np.float64] = (off**0.7).sum(1)
    return found


def reference(w: Floats, levels: int, iterations: int = 20) -> float:
    """The loss that half-quadratic splitting reaches on one group, by the paper's alternating steps."""
    x = w.astype(np.float64)
    scale = float(np.float16((x.max() - x.min()) / (levels - 1)))
    steps, zero, beta, best = x / scale, -x.min() / scale, 10.0, np.inf
    for _ in range(iterations + 1):
        codes = np.clip(np.rint(steps + zero), 0, levels - 1)
        residual = steps - (codes - zero)
        best = min(best, float((np.abs(residual) ** 0.7).sum()))
        size = np.maximum(np.abs(residual), 1e-12)
        e = np.sign(residual) * np.maximum(size - size ** (0.7 - 1) / beta, 0)
        zero = float((codes - (steps - e)).mean())
        beta *= 1.01
    return best


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_reaches_the_loss_of_the_definition(bits: int) -> None:
    grid, w = affine_grid(bits, -1), weights(40, 64)
    found, expected = lp(w, grid, search(w, None, grid)), np.array([reference(r, 1 << bits) for r in w])
    # Half-precision minima may lead a group elsewhere; over many they make no difference.
    assert found.sum() == pytest.approx(expected.sum(), rel=0.01)
    assert np.median(np.abs(found / expected - 1)) < 0.01


@settings(max_examples=40, deadline=None)
@given(
    bits=st.integers(2, 8), columns=st.integers(2, 200), seed=st.integers(0, 99), size=st.sampled_from([1e-3, 1.0, 1e3])
)
def test_the_loss_never_rises_and_the_scale_stays(bits: int, columns: int, seed: int, size: float) -> None:
    grid, w = affine_grid(bits, -1), weights(4, columns, seed) * np.float32(size)
    found, plain = search(w, None, grid), grids.min_max(w, grid)
    assert np.array_equal(found.scales, plain.scales)
    assert (lp(w, grid, found) <= lp(w, grid, plain) * (1 + 1e-3) + 1e-3).all()


def test_moves_the_float_zero_and_lowers_loss_and_squared_error() -> None:
    grid, w = affine_grid(3, 64), weights(64, 256)
    a, b = rounded(w, search(w, None, grid), grid), rounded(w, grids.min_max(w, grid), grid)
    assert not np.array_equal(a.zero_points, b.zero_points)
    assert np.square(a.dequantize() - w).sum() < 0.95 * np.square(b.dequantize() - w).sum()


def test_integer_zero_points_could_not_be_moved_to_any_use() -> None:
    """Why such grids get their own search: on min-max scales no other zero point has a lower loss."""
    for bits, seed in ((2, 0), (3, 1), (4, 2)):
        grid, w = int_grid(bits, -1), weights(20, 64, seed)
        plain = grids.min_max(w, grid)
        assert plain.zero_points is not None
        for move in (-2, -1, 1, 2):
            zero = np.clip(plain.zero_points.astype(int) + move, 0, grid.levels - 1).astype(np.uint8)
            assert (lp(w, grid, Parameters(plain.scales, zero)) >= lp(w, grid, plain) * (1 - 1e-6)).all()


def test_the_unit_of_the_weights_does_not_matter() -> None:
    grid, w = affine_grid(4, 32), weights(16, 64)
    a, b = (rounded(w * s, search(w * s, None, grid), grid) for s in (np.float32(1), np.float32(64)))
    assert (a.codes == b.codes).mean() > 0.999


def test_ignores_importance_and_leaves_other_grids_to_their_search() -> None:
    w, h = weights(8, 64), np.random.default_rng(0).lognormal(0, 2, 64).astype(np.float32)
    a, b = search(w, h, affine_grid(4, 32)), search(w, None, affine_grid(4, 32))
    assert np.array_equal(a.zero_points, b.zero_points)
    for grid in (int_grid(4, 32), int_grid(4, 32, symmetric=True), codebook_grid("nf4", 32)):
        assert np.array_equal(search(w, h, grid).scales, grids.find(w, h, grid).scales)
        assert np.array_equal(hqq.quantize(w, grid).codes, rounded(w, grids.find(w, None, grid), grid).codes)


def test_constant_groups_and_refusals() -> None:
    for value in (0.0, 0.5, -3.0):
        w = np.full((2, 40), value, np.float32)
        for grid in (affine_grid(4, 16), int_grid(4, 16)):
            q = rounded(w, search(w, None, grid), grid)
            assert np.abs(q.dequantize() - w).max() <= 1e-3 * abs(value)
    bad = weights(2, 32)
    bad[0, 0] = np.nan
    with pytest.raises(EdgeqError, match="not finite"):
        search(bad, None, affine_grid(4, 32))
    with pytest.raises(EdgeqError, match="multiple of 32"):
        search(weights(2, 40), None, GGML_GRIDS["Q4_1"])
