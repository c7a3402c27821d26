"""AWQ's scales: what they cost and gain, against direct float64 computations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.model.spec import MLP, Attention, Layer, ModelSpec
from edgeq.model.tensors import tensors
from edgeq.quantize.block import Block, groups
from edgeq.quantize.methods import find_method
from edgeq.quantize.run_block import BlockRunner
from edgeq.quantize.solvers.hessian import by_importance, damped
from edgeq.quantize.solvers.rtn import rounded
from edgeq.quantize.statistics import InputStatistics
from edgeq.quantize.transforms.awq import EXPONENTS, awq, best_scale, candidate_scales, column_costs, feeds_back
from edgeq.quantize.transforms.fold import FoldPoint, fold_points
from edgeq.scheme import F32, Grid, affine_grid, codebook_grid, int_grid

HIDDEN, WIDTH = 72, 96  # 72 is no multiple of 32: the last group is ragged
SPEC = ModelSpec(
    "tiny",
    "llama",
    HIDDEN,
    40,
    (Layer(Attention(4, 2, 32, 32**-0.5), MLP(WIDTH)),),
    tied=True,
    max_positions=64,
)


def _statistics(x: torch.Tensor) -> InputStatistics:
    size, n = x.abs(), len(x)
    return InputStatistics(n, x.T @ x / n, size.amax(0), size.mean(0), x.mean(0), x.amin(0), x.amax(0))


def _block(grid: Grid, seed: int = 0, method: str = "awq") -> Block:
    g = torch.Generator().manual_seed(seed)
    values = {t.name: torch.randn(t.shape, generator=g) * 0.1 for t in tensors(SPEC) if t.layer == 0}
    for name in ("layers.0.attn_norm", "layers.0.mlp_norm"):  # a few channels carry most of the energy
        values[name] = torch.exp(torch.randn(HIDDEN, generator=g)) * 0.5
    grids = {n: grid for n, v in values.items() if v.ndim == 2}
    b = Block(SPEC, 0, dict(values), values, grids, groups(SPEC, 0), method=find_method(method))
    x = torch.randn(4, 32, HIDDEN, generator=g)
    b.batches = lambda: iter([x])
    runner = BlockRunner(SPEC, 0)
    b.statistics_of = lambda group: _statistics(runner.input_of(group, b.running(), x).flatten(0, -2))
    return b


def _output_error(b: Block) -> float:
    """Mean squared error of the block with every matrix quantized by its method, in the order they run."""
    runner = BlockRunner(SPEC, 0)
    assert b.batches is not None and b.statistics_of is not None and b.method is not None
    x = next(b.batches())
    wanted = runner(b.original, x)
    for group in b.groups:
        found = b.statistics_of(group)
        for name in group:
            b.quantized[name] = b.method.quantize(b.current[name].numpy(), b.grids[name], found)
    return float((runner(b.running(), x) - wanted).square().mean())


@pytest.mark.parametrize("method", ["awq", "awq+gptq"])
@pytest.mark.parametrize("grid", [int_grid(4, 32), int_grid(3, 32, symmetric=True)])
def test_scales_keep_the_block_and_lower_its_quantized_error(grid: Grid, method: str) -> None:
    b = _block(grid, method=method)
    assert b.batches is not None
    plain = _output_error(_block(grid, method=method))
    runner, x = BlockRunner(SPEC, 0), next(b.batches())
    before = runner(b.current, x)
    awq(b)
    assert float((runner(b.current, x) - before).abs().max()) < 1e-5 * float(before.abs().max())
    assert any(not torch.equal(b.current[n], b.original[n]) for n in b.grids)
    assert _output_error(b) < 0.98 * plain


@given(seed=st.integers(0, 10_000), rank=st.integers(1, 20))
@settings(max_examples=20, deadline=None)
def test_costs_of_columns_are_what_later_columns_cannot_make_up_for(seed: int, rank: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rank, 12)) * np.exp(rng.standard_normal(12))
    gram = torch.from_numpy((x.T @ x / rank).astype(np.float32))
    assert torch.equal(column_costs(gram, feedback=False), gram.diagonal())
    found = column_costs(gram, feedback=True).double().numpy()
    h, order = damped(gram).double().numpy(), by_importance(gram).tolist()
    for k, j in enumerate(order):
        rest = order[k + 1 :]  # least squares over the columns still to come: a Schur complement
        schur = h[j, j] - (h[j, rest] @ np.linalg.solve(h[np.ix_(rest, rest)], h[rest, j]) if rest else 0.0)
        assert found[j] == pytest.approx(schur, rel=1e-4)


def test_error_feedback_costs_less_than_rounding_alone() -> None:
    x = torch.randn(200, 16, generator=torch.Generator().manual_seed(0)) @ torch.randn(16, 16)
    gram = x.T @ x / 200
    alone, fed = column_costs(gram, feedback=False), column_costs(damped(gram), feedback=True)
    assert bool((fed <= alone * 1.05).all()) and fed.sum() < 0.9 * alone.sum()


def test_candidates_follow_the_formula_and_keep_each_units_weights_as_large_as_they_were() -> None:
    point = FoldPoint("mlp", ("n",), ("w",), 6, 6, norm=True)
    energy = torch.tensor([4.0, 1.0, 9.0, 1.0, 1.0, 25.0])
    magnitude = torch.tensor([1.0, 4.0, 1.0, 1.0, 16.0, 1.0])
    found = candidate_scales(point, energy, magnitude, 4)
    assert torch.equal(found[0], torch.ones(6))
    for scale, a in zip(found[1:], EXPONENTS, strict=True):
        raw = energy.sqrt() ** a / magnitude.sqrt() ** (1 - a)
        for part in (slice(0, 4), slice(4, 6)):
            ratio = scale[part] / raw[part]
            torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))
            assert float((magnitude * scale.square())[part].mean()) == pytest.approx(float(magnitude[part].mean()))


def test_dead_channels_and_empty_columns_give_finite_scales() -> None:
    b = _block(int_grid(4, 32))
    assert b.statistics_of is not None and b.method is not None
    point = fold_points(SPEC, 0)[0]
    found = b.statistics_of(b.groups[0])
    for name in point.targets:
        b.current[name][:, 5] = 0
    dead = found.gram.clone()
    dead[7], dead[:, 7] = 0, 0
    scale = best_scale(b, point, replace(found, gram=dead), b.method)
    assert scale is not None and bool((scale.isfinite() & (scale > 0)).all())
    nothing = replace(found, gram=torch.zeros_like(dead))
    silent = best_scale(b, point, nothing, b.method)
    assert silent is None or bool(silent.isfinite().all())


@pytest.mark.parametrize(
    "grid", [int_grid(4, -1), affine_grid(3, 32), codebook_grid("nf4", 32, double=True), int_grid(8, 64)]
)
def test_a_scale_is_taken_only_where_it_lowers_the_loss(grid: Grid) -> None:
    """The loss, computed again here, never rises at any of the four places; heads that share a value included."""
    b = _block(grid, seed=3)
    assert b.statistics_of is not None and b.method is not None
    for point, group in zip(fold_points(SPEC, 0), b.groups, strict=True):
        found = b.statistics_of(group)
        scale = best_scale(b, point, found, b.method)
        if scale is None:
            continue
        losses = []
        for s in (torch.ones(point.channels), scale):
            columns, total = point.spread(s).numpy(), 0.0
            importance = found.importance.numpy() / columns**2
            importance = np.maximum(importance, 1e-6 * importance.mean())
            for name in group:
                w = b.current[name].numpy()
                parameters = b.method.search(w * columns, importance, grid)
                off = (rounded(w * columns, parameters, grid).dequantize() / columns - w).astype(np.float64)
                energy = np.einsum("rk,kl,rl->", w, found.gram.numpy(), w)
                total += float((off**2 * found.importance.numpy()).sum() / energy)
            losses.append(total)
        assert losses[1] < losses[0]


def test_matrices_that_stay_float_are_left_alone() -> None:
    b = _block(F32)
    b.grids.clear()
    awq(b)
    assert all(torch.equal(b.current[n], b.original[n]) for n in b.original)


def test_which_methods_feed_back() -> None:
    assert [feeds_back(find_method(n)) for n in ("awq", "rtn", "gptq", "awq+gptq", "autoround")] == [
        False,
        False,
        True,
        True,
        True,
    ]
