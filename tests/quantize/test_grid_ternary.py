"""The ternary search is exact: against every choice of codes on small groups, and the published heuristics."""

from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.errors import EdgeqError
from edgeq.quantize.grids.ternary import absmean, min_max, search
from edgeq.quantize.methods.ternary import absmean as absmean_method
from edgeq.quantize.methods.ternary import ternary
from edgeq.quantize.solvers.rtn import rounded
from edgeq.scheme import codebook_grid

Floats = npt.NDArray[np.float32]


def weights(rows: int, columns: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)


def error(w: Floats, q: QuantizedTensor, h: Floats | None = None) -> float:
    off = (q.dequantize().astype(np.float64) - w) ** 2
    return float((off * (1 if h is None else h)).sum())


def test_finds_the_optimum_over_all_codes() -> None:
    size = 8
    codes = np.array(list(product((-1, 0, 1), repeat=size)), np.float64)[1:]
    codes = codes[(codes != 0).any(1)]
    grid, w = codebook_grid("ternary", size), weights(10, size * 2)
    h = np.random.default_rng(1).lognormal(0, 1.5, size * 2).astype(np.float32)
    for importance in (np.ones_like(h), h):
        best = 0.0
        for row in w.astype(np.float64):
            for a in (0, size):
                x, weight = row[a : a + size], importance[a : a + size].astype(np.float64)
                gain = (codes @ (weight * x)) ** 2 / ((codes**2) @ weight)
                best += float((weight * x * x).sum() - gain.max())
        found = error(w, rounded(w, search(w, importance, grid), grid), importance)
        assert best * (1 - 1e-9) <= found <= best * (1 + 1e-5)  # the scale is rounded to half precision


@settings(max_examples=40, deadline=None)
@given(group=st.sampled_from([-1, 16, 64, 256]), columns=st.integers(1, 600), weighted=st.booleans())
def test_never_worse_than_absmean_absmax_and_the_threshold_of_twn(group: int, columns: int, weighted: bool) -> None:
    grid, w = codebook_grid("ternary", group), weights(4, columns, columns)
    h = np.random.default_rng(columns).lognormal(0, 1, columns).astype(np.float32) if weighted else None
    found = error(w, rounded(w, search(w, h, grid), grid), h)
    for other in (absmean(w, h, grid), min_max(w, grid)):
        assert found <= error(w, rounded(w, other, grid), h) * (1 + 1e-5) + 1e-12
    if group == -1:
        size, kept = np.abs(w).astype(np.float64), np.abs(w) > 0.7 * np.abs(w).mean(1, keepdims=True)
        scale = (size * kept).sum(1, keepdims=True) / np.maximum(kept.sum(1, keepdims=True), 1)
        twn = ((w - np.sign(w) * kept * scale) ** 2 * (1 if h is None else h)).sum()
        assert found <= twn + 1e-6 * float((w.astype(np.float64) ** 2 * (1 if h is None else h)).sum())


def test_absmean_is_the_mean_magnitude() -> None:
    grid, w = codebook_grid("ternary", 32), weights(3, 80)
    expected = [[np.abs(r[a:b]).mean() for a, b in ((0, 32), (32, 64), (64, 80))] for r in w]
    assert np.allclose(absmean(w, None, grid).scales, expected, rtol=1e-3)
    assert np.array_equal(absmean_method.quantize(w, grid).scales, absmean(w, None, grid).scales)


def test_weights_on_the_grid_come_back_exactly() -> None:
    codes = np.random.default_rng(0).integers(-1, 2, (6, 96))
    w = (codes * 0.375).astype(np.float32)
    q = ternary.quantize(w, codebook_grid("ternary", 32))
    assert np.array_equal(q.dequantize(), w) and q.codes.max() == 2


def test_rows_double_quantization_zeros_and_damage() -> None:
    w = weights(4, 700)
    rows = search(w, None, codebook_grid("ternary", -1))
    assert rows.scales.shape == (4, 1)
    double = codebook_grid("ternary", 64, double=True)
    single = codebook_grid("ternary", 64)
    assert error(w, rounded(w, search(w, None, double), double)) < 1.01 * error(
        w, rounded(w, search(w, None, single), single)
    )
    zeros = np.zeros((2, 64), np.float32)
    assert not rounded(zeros, search(zeros, None, single), single).dequantize().any()
    w[0, 0] = np.inf
    with pytest.raises(EdgeqError, match="not finite"):
        search(w, None, single)
