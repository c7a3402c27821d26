"""The codebook search against an exhaustive one in double precision, known tables, and double quantization."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.checkpoint.codebooks import CODEBOOKS, codebook
from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.errors import EdgeqError
from edgeq.quantize.grids import groups
from edgeq.quantize.grids.codebook import min_max, refuses, search
from edgeq.quantize.solvers.rtn import rounded
from edgeq.scheme import GGML_GRIDS, Grid, codebook_grid, int_grid

Floats = npt.NDArray[np.float32]
NAMES = ("nf4", "fp4", "iq4_nl")


def weights(rows: int, columns: int, seed: int = 0) -> Floats:
    rng = np.random.default_rng(seed)
    return (rng.standard_t(4, (rows, columns)) * rng.lognormal(0, 0.5, (rows, 1))).astype(np.float32)


def importances(columns: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).lognormal(0, 1.5, columns).astype(np.float32)


def error(w: Floats, q: QuantizedTensor, h: Floats | None = None) -> float:
    off = (q.dequantize().astype(np.float64) - w) ** 2
    return float((off * (1 if h is None else h)).sum())


def exhaustive(w: Floats, h: Floats, table: Floats) -> float:
    """The least error of one group over 20 000 real scales of both signs."""
    x, weight, values = w.astype(np.float64), h.astype(np.float64), table.astype(np.float64)
    span = np.abs(x).max() / np.abs(values).max()
    best = np.inf
    for scales in np.split(np.concatenate([np.linspace(0.1, 3, 10_000), -np.linspace(0.1, 3, 10_000)]) * span, 20):
        nearest = values[np.searchsorted((values[1:] + values[:-1]) / 2, x / scales[:, None])]
        best = min(best, float((((nearest * scales[:, None] - x) ** 2) * weight).sum(1).min()))
    return best


@pytest.mark.parametrize("name", NAMES)
def test_finds_what_an_exhaustive_search_finds(name: str) -> None:
    grid, w, h = codebook_grid(name, 16), weights(8, 48), importances(48)
    for importance in (np.ones_like(h), h):
        found = error(w, rounded(w, search(w, importance, grid), grid), importance)
        best = sum(exhaustive(r[a : a + 16], importance[a : a + 16], codebook(name)) for r in w for a in (0, 16, 32))
        assert found <= best * 1.01


@settings(max_examples=50, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    group=st.sampled_from([-1, 16, 32, 64, 128]),
    columns=st.integers(1, 300),
    seed=st.integers(0, 1000),
    size=st.sampled_from([1e-9, 1e-3, 1.0, 1e3]),
    weighted=st.booleans(),
)
def test_never_worse_than_min_max(name: str, group: int, columns: int, seed: int, size: float, weighted: bool) -> None:
    grid = codebook_grid(name, group)
    w = (weights(3, columns, seed) * size).astype(np.float32)
    h = importances(columns, seed) if weighted else None
    fine, plain = search(w, h, grid), min_max(w, grid)
    a, b = (error(w, rounded(w, p, grid), h) for p in (fine, plain))
    assert a <= b * (1 + 1e-4) + 1e-30
    assert rounded(w, fine, grid).codes.max() < len(CODEBOOKS[name])
    assert fine.scales.dtype == np.float16 and np.isfinite(fine.scales).all() and (fine.scales != 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_fine_search_pays(name: str) -> None:
    grid, w, h = codebook_grid(name, 64), weights(64, 256), importances(256)
    found, plain = (error(w, rounded(w, p, grid), h) for p in (search(w, h, grid), min_max(w, grid)))
    assert found < plain * 0.75


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", NAMES)
def test_weights_on_the_grid_come_back_exactly(name: str, sign: int) -> None:
    grid, rng, table = codebook_grid(name, 32), np.random.default_rng(0), codebook(name)
    values = table[rng.integers(0, len(table), (8, 64))]
    values[:, ::32], values[:, 1::32] = table[0], table[-1]
    w = (values * np.repeat(rng.choice([2.0**-5, 2.0**-7], (8, 2)), 32, 1) * sign).astype(np.float32)
    assert np.array_equal(rounded(w, search(w, importances(64), grid), grid).dequantize(), w)


def test_a_negative_scale_turns_a_table_that_is_not_symmetric() -> None:
    grid, w = codebook_grid("iq4_nl", 32), weights(200, 32)
    scales = search(w, None, grid).scales
    assert 0.2 < (scales < 0).mean() < 0.8  # the heavier tail of a group is as often below zero as above
    assert (search(w, None, codebook_grid("fp4", 32)).scales > 0).all()


def test_smaller_groups_never_lose() -> None:
    w, h = weights(16, 256), importances(256)
    sizes = [codebook_grid("nf4", g) for g in (-1, 128, 64, 32, 16)]
    assert all(b < a for a, b in pairwise(error(w, rounded(w, search(w, h, g), g), h) for g in sizes))


def test_importance_moves_the_error_to_where_it_matters_less() -> None:
    grid, w = codebook_grid("nf4", 64), weights(20, 64)
    h = np.ones(64, np.float32)
    h[:4] = 1000
    off = [np.square(rounded(w, search(w, i, grid), grid).dequantize() - w)[:, :4].sum() for i in (h, None)]
    assert off[0] < off[1] * 0.5


def test_known_values_of_nf4() -> None:
    """The table of QLoRA's appendix E, and the construction it describes: quantiles of a normal distribution, evenly
    spaced in probability on either side of zero, scaled to [-1, 1]."""
    from statistics import NormalDist

    table = codebook("nf4")
    assert table[0] == -1 and table[7] == 0 and table[15] == 1
    assert table[3] == np.float32(-0.39491748809814453) and table[14] == np.float32(0.7229568362236023)
    offset, quantile = 0.9677083, NormalDist().inv_cdf
    above = [quantile(p) for p in np.linspace(offset, 0.5, 9)[:-1]]
    below = [-quantile(p) for p in np.linspace(offset, 0.5, 8)[:-1]]
    built = np.array(sorted([*above, 0.0, *below])) / max(above)
    assert np.abs(built - table).max() < 2e-6


@pytest.mark.parametrize("name", ["nf4", "iq4_nl"])
def test_double_quantization_costs_next_to_nothing(name: str) -> None:
    w, h = weights(32, 320), importances(320)
    plain, double = codebook_grid(name, 64), codebook_grid(name, 64, double=True)
    p = search(w, h, double)
    assert p.scales.dtype == np.int8 and p.super_scales is not None and p.super_scales.shape == (32, 1)
    assert p.super_scales.dtype == np.float16
    found, single = error(w, rounded(w, p, double), h), error(w, rounded(w, search(w, h, plain), plain), h)
    assert found <= single * 1.01
    assert found < 0.8 * error(w, rounded(w, min_max(w, double), double), h)


@settings(max_examples=25, deadline=None)
@given(group=st.sampled_from([-1, 16, 64]), columns=st.integers(1, 200), size=st.sampled_from([0.0, 1e-6, 1.0, 1e3]))
def test_double_quantization_of_any_shape(group: int, columns: int, size: float) -> None:
    grid = codebook_grid("nf4", group, double=True)
    w = (weights(5, columns) * size).astype(np.float32)
    q = rounded(w, search(w, None, grid), grid)
    assert np.isfinite(q.dequantize()).all()
    assert error(w, q) <= 0.2 * np.square(w.astype(np.float64)).sum() + 1e-9 * columns


def test_zero_and_dead_groups() -> None:
    for grid in (codebook_grid("nf4", 16), codebook_grid("nf4", 16, double=True)):
        zeros = np.zeros((2, 40), np.float32)
        assert not rounded(zeros, search(zeros, None, grid), grid).dequantize().any()
        w, dead = weights(4, 40), importances(40)
        dead[:16] = 0  # a group that no calibration input reached keeps sensible weights
        q = rounded(w, search(w, dead, grid), grid)
        assert (
            error(w[:, :16], QuantizedTensor.of(codebook_grid("nf4", 16), *_first_group(q))) < 0.1 * np.square(w).sum()
        )


def _first_group(q: QuantizedTensor) -> tuple[npt.NDArray[np.uint8], object]:
    from edgeq.checkpoint.tensor import Parameters, group_scales

    scales = group_scales(q.grid, q.parameters, q.shape[1])[:, :1]
    return q.codes[:, :16], Parameters(scales.astype(np.float16))


def test_the_result_does_not_depend_on_threads_or_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    grid, w, h = codebook_grid("nf4", 32, double=True), weights(64, 100), importances(100)
    found = []
    for threads, block in (("1", 1 << 16), ("3", 1 << 16), ("3", 1 << 9)):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        monkeypatch.setattr(groups, "BLOCK", block)
        found.append(search(w, h, grid))
    assert all(np.array_equal(found[0].scales, f.scales) for f in found)
    assert all(np.array_equal(found[0].super_scales, f.super_scales) for f in found)


def test_refuses_what_it_cannot_store() -> None:
    w = weights(4, 32)
    for grid in (int_grid(4, 32), GGML_GRIDS["IQ4_XS"], Grid("codebook", 3, 32, "none", codebook="nf4")):
        with pytest.raises(EdgeqError, match="can't be quantized"):
            search(w, None, grid)
    with pytest.raises(EdgeqError, match="dimensions"):
        search(w[0], None, codebook_grid("nf4", 32))
    with pytest.raises(EdgeqError, match="no codebook"):
        search(w, None, codebook_grid("nf5", 32))
    assert "multiple of 32" in str(refuses(GGML_GRIDS["IQ4_NL"], (4, 48)))
    w[1, 3] = np.nan
    with pytest.raises(EdgeqError, match="not finite"):
        search(w, None, codebook_grid("nf4", 32))
