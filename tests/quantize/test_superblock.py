"""Super-block grids: exact where the weight is on the grid, near the best there is, never worse than min-max."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.checkpoint.codebooks import codebook
from edgeq.checkpoint.tensor import Parameters, QuantizedTensor
from edgeq.errors import EdgeqError
from edgeq.quantize.grids.superblock import fallback, fitting, min_max, refuses, search
from edgeq.quantize.solvers.rtn import rounded
from edgeq.scheme import F16, GGML_GRIDS, Grid, codebook_grid, int_grid

NAMES = [name for name, grid in GGML_GRIDS.items() if grid.super_size]
SUPER = 256


def on_grid(weight: np.ndarray, parameters: Parameters, grid: Grid) -> np.ndarray:
    return rounded(weight, parameters, grid).dequantize()


def error(weight: np.ndarray, parameters: Parameters, grid: Grid, importance: np.ndarray | None = None) -> float:
    off = on_grid(weight, parameters, grid).astype(np.float64) - weight
    return float((off * off * (1 if importance is None else importance)).sum())


def drawn(grid: Grid, rng: np.random.Generator, rows: int = 3, columns: int = 512) -> QuantizedTensor:
    """A tensor whose groups use their first and last code, and whose scale codes use most of their range."""
    groups, supers = (rows, columns // grid.group_size), (rows, columns // SUPER)
    top = 15 if grid.codebook else grid.levels - 1
    codes = rng.integers(0, top + 1, (rows, columns)).astype(np.uint8)
    codes[:, :: grid.group_size], codes[:, 1 :: grid.group_size] = 0, top
    d = rng.uniform(1e-3, 2e-3, supers).astype(np.float16)
    if grid.symmetric:
        half = 1 << (grid.scale_bits - 1)
        scales = rng.integers(half // 2, half, groups) * rng.choice([-1, 1], groups)
        return QuantizedTensor.of(grid, codes, Parameters(scales.astype(np.int8), None, d))
    largest = (1 << grid.scale_bits) - 1
    scales = rng.integers(largest // 2, largest + 1, groups).astype(np.uint8)
    minima = rng.integers(largest // 2, largest + 1, groups).astype(np.uint8)
    return QuantizedTensor.of(grid, codes, Parameters(scales, minima, d, (d * np.float16(4)).astype(np.float16)))


@pytest.mark.parametrize("name", NAMES)
def test_a_weight_on_the_grid_is_found_again(name: str) -> None:
    grid = GGML_GRIDS[name]
    weight = drawn(grid, np.random.default_rng(0)).dequantize()
    importance = np.random.default_rng(1).uniform(0.1, 10, weight.shape[1]).astype(np.float32)
    found = on_grid(weight, search(weight, importance, grid), grid)
    assert np.abs(found - weight).max() < 1e-6 * np.abs(weight).max()


KINDS = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "heavy": lambda rng, shape: rng.standard_t(2, shape),
    "shifted": lambda rng, shape: rng.standard_normal(shape) * 0.1 + 1,
    "negative": lambda rng, shape: -rng.uniform(0.5, 1, shape),
    "sparse": lambda rng, shape: rng.standard_normal(shape) * (rng.random(shape) < 0.05),
    "uneven": lambda rng, shape: rng.standard_normal(shape) * np.exp(3 * rng.standard_normal((1, shape[1]))),
}


@settings(max_examples=12, deadline=None)
@given(kind=st.sampled_from(sorted(KINDS)), seed=st.integers(0, 99), weighted=st.booleans())
@pytest.mark.parametrize("name", NAMES)
def test_never_worse_than_min_max(name: str, kind: str, seed: int, weighted: bool) -> None:
    grid, rng = GGML_GRIDS[name], np.random.default_rng(seed)
    weight = KINDS[kind](rng, (2, 512)).astype(np.float32)
    importance = np.exp(2 * rng.standard_normal(512)).astype(np.float32) if weighted else None
    ours = error(weight, search(weight, importance, grid), grid, importance)
    assert ours <= error(weight, min_max(weight, grid), grid, importance) * (1 + 1e-5)


def brute_affine(w: np.ndarray, h: np.ndarray, grid: Grid) -> float:
    """float64: for many pairs of d and dmin, every scale code and minimum code of every group of one super-block."""
    top, largest = grid.levels - 1, (1 << grid.scale_bits) - 1
    x, h = w.reshape(-1, grid.group_size).astype(np.float64), h.reshape(-1, grid.group_size).astype(np.float64)
    span, low = np.ptp(x, 1).max() / top, -x.min()
    s, m = np.meshgrid(np.arange(largest + 1.0), np.arange(largest + 1.0), indexing="ij")
    best = np.inf
    for d in np.float16(span / largest * np.linspace(0.6, 1.1, 24)).astype(float):
        for dmin in np.float16(low / largest * np.linspace(0.5, 1.1, 16)).astype(float):
            scale, minimum = (d * s).reshape(-1, 1, 1), (dmin * m).reshape(-1, 1, 1)
            code = np.clip(np.rint((x + minimum) / np.where(scale > 0, scale, np.inf)), 0, top)
            off = code * scale - minimum - x
            best = min(best, (off * off * h).sum(2).min(0).sum())
    return float(best)


def brute_signed(w: np.ndarray, h: np.ndarray, grid: Grid, levels: np.ndarray) -> float:
    """float64: for many values of d, every scale code of every group of one super-block."""
    half = 1 << (grid.scale_bits - 1)
    x, h = w.reshape(-1, grid.group_size).astype(np.float64), h.reshape(-1, grid.group_size).astype(np.float64)
    codes = np.array([c for c in range(-half, half) if c])
    best = np.inf
    for d in np.float16(np.abs(x).max() / np.abs(levels).max() / half * np.linspace(0.6, 1.4, 60)).astype(float):
        scale = (d * codes).reshape(-1, 1, 1)
        nearest = np.abs(x[..., None] / scale[..., None] - levels).argmin(-1)
        off = levels[nearest] * scale - x
        best = min(best, (off * off * h).sum(2).min(0).sum())
    return float(best)


def heavy_or_even(rng: np.random.Generator, weighted: bool) -> np.ndarray:
    return np.exp(2 * rng.standard_normal(SUPER) * weighted).astype(np.float32)


@pytest.mark.parametrize(("weighted", "bound"), [(False, 1.01), (True, 1.04)])
@pytest.mark.parametrize("name", ["Q2_K", "Q3_K", "IQ4_XS"])
def test_close_to_brute_force(name: str, weighted: bool, bound: float) -> None:
    grid, ratios = GGML_GRIDS[name], []
    levels = codebook("iq4_nl").astype(float) if grid.codebook else np.arange(-4.0, 4)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        weight, h = rng.standard_normal((1, SUPER)).astype(np.float32), heavy_or_even(rng, weighted)
        best = brute_signed(weight, h, grid, levels) if grid.symmetric else brute_affine(weight, h, grid)
        ratios.append(error(weight, search(weight, h, grid), grid, h) / best)
    assert np.mean(ratios) <= bound


EXTREMES = {
    "zeros": np.zeros((1, SUPER)),
    "a constant": np.full((1, SUPER), 0.37),
    "a negative constant": np.full((1, SUPER), -0.37),
    "one weight": np.eye(1, SUPER, 100) * -5,
    "groups of zeros": np.repeat(np.arange(16) % 2, 16)[None] * np.linspace(-1, 1, SUPER),
    "tiny": np.linspace(-1e-30, 1e-30, SUPER)[None],
    "subnormal": np.linspace(-1e-44, 1e-44, SUPER)[None],
    "small for f16": np.linspace(-1e-6, 1e-6, SUPER)[None],
    "huge": np.linspace(-1e30, 1e30, SUPER)[None],
    "largest": np.linspace(-3.4e38, 3.4e38, SUPER)[None],
    "outlier": np.linspace(-1, 1, SUPER)[None] + np.eye(1, SUPER, 7) * 1e8,
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", EXTREMES)
@pytest.mark.parametrize("name", NAMES)
def test_extreme_weights_give_finite_ones(name: str, kind: str, weighted: bool) -> None:
    grid, weight = GGML_GRIDS[name], EXTREMES[kind].astype(np.float32)
    importance = np.linspace(0, 1, SUPER, dtype=np.float32) if weighted else None
    found = search(weight, importance, grid)
    value = on_grid(weight, found, grid)
    assert all(np.isfinite(a).all() for a in found.arrays() if a is not None)
    assert np.isfinite(value).all()
    if kind in ("zeros", "tiny", "subnormal"):
        assert not value.any()
    if kind in ("a constant", "a negative constant", "one weight"):
        nearest_zero = 0.01 if grid.codebook else 0.001  # iq4_nl has no level of zero, but one of 1/127
        assert np.abs(value - weight).max() <= nearest_zero * np.abs(weight).max()


def test_inputs_never_seen_cost_nothing_but_are_not_left_to_chance() -> None:
    grid, rng = GGML_GRIDS["Q4_K"], np.random.default_rng(0)
    weight = rng.standard_normal((2, 512)).astype(np.float32)
    importance = np.ones(512, np.float32)
    importance[256:] = 0
    found = on_grid(weight, search(weight, importance, grid), grid)
    assert np.abs(found - weight)[:, 256:].max() < 0.3
    plain = on_grid(weight, search(weight, None, grid), grid)
    nothing = on_grid(weight, search(weight, np.zeros(512, np.float32), grid), grid)
    assert np.array_equal(plain, nothing)


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_independent_and_threads_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = GGML_GRIDS[name]
    weight = np.random.default_rng(3).standard_normal((300, 512)).astype(np.float32)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    one = search(weight, None, grid)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    three = search(weight, None, grid)
    alone = search(weight[137:138], None, grid)
    for a, b, c in zip(one.arrays(), three.arrays(), alone.arrays(), strict=True):
        assert a is None or (np.array_equal(a, b) and np.array_equal(a[137:138], c))


def test_what_does_not_fit_is_refused_with_a_reason() -> None:
    assert refuses(GGML_GRIDS["Q4_K"], (4, 512)) is None
    assert "multiple of 256" in str(refuses(GGML_GRIDS["Q6_K"], (4, 576)))
    assert "3 dimensions" in str(refuses(GGML_GRIDS["Q6_K"], (4, 2, 256)))
    for grid in (GGML_GRIDS["Q4_0"], int_grid(4, 32), codebook_grid("nf4", 64, double=True)):
        assert refuses(grid, (4, 512)) is not None
    with pytest.raises(EdgeqError, match="multiple of 256"):
        search(np.ones((4, 576), np.float32), None, GGML_GRIDS["Q6_K"])
    with pytest.raises(EdgeqError, match="not finite"):
        search(np.full((1, 256), np.nan, np.float32), None, GGML_GRIDS["Q6_K"])
    with pytest.raises(EdgeqError, match="importance"):
        search(np.ones((1, 256), np.float32), np.full(256, -1, np.float32), GGML_GRIDS["Q6_K"])


def test_fallbacks_are_those_of_llama_cpp() -> None:
    assert fallback("Q4_K", 512) == "Q4_K"
    assert [fallback(t, 576) for t in ("Q4_K", "Q6_K", "IQ4_XS")] == ["Q5_0", "Q8_0", "IQ4_NL"]
    assert fallback("Q4_K", 90) == "F16"
    assert fitting(GGML_GRIDS["Q4_K"], 512) == GGML_GRIDS["Q4_K"]
    assert fitting(GGML_GRIDS["Q3_K"], 576) == GGML_GRIDS["Q4_0"]
    assert fitting(GGML_GRIDS["Q4_1"], 90) == F16
    assert fitting(int_grid(4, 32), 90) == int_grid(4, 32)
