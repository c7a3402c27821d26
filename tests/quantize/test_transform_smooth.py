"""SmoothQuant's scales: the noise they are chosen by, and what they do to a block in 8 bits."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch

from edgeq.decoder.fake_quant import fake_quantized
from edgeq.model.spec import MLP, Attention, Layer, ModelSpec
from edgeq.model.tensors import tensors
from edgeq.quantize.activations import activation_grids
from edgeq.quantize.block import Block, groups
from edgeq.quantize.methods import find_method
from edgeq.quantize.run_block import BlockRunner
from edgeq.quantize.sample import sample_of
from edgeq.quantize.transforms.smooth import Reader, noise, smooth
from edgeq.scheme import Grid, affine_grid, int_grid

Activations = Literal["float", "dynamic", "static"]
SPEC = ModelSpec("t", "llama", 64, 40, (Layer(Attention(4, 2, 16, 0.25), MLP(96)),), tied=True, max_positions=64)
GRID = int_grid(8, -1, symmetric=True)


def _block(activations: Activations) -> Block:
    """Norms give a few channels large inputs; one channel of `down` is far above all others."""
    g = torch.Generator().manual_seed(0)
    values = {t.name: torch.randn(t.shape, generator=g) * 0.1 for t in tensors(SPEC)}
    for name in ("layers.0.attn_norm", "layers.0.mlp_norm"):
        values[name] = torch.exp(torch.randn(64, generator=g)) * 0.4
    values["layers.0.up"][5] *= 60
    values["layers.0.down"][:, 5] /= 60
    grids = {n: GRID for n, v in values.items() if v.ndim == 2 and n != "embed"}
    b = Block(SPEC, 0, dict(values), values, grids, groups(SPEC, 0), method=find_method("smoothquant"))
    b.activations = activations
    x = torch.randn(8, 32, 64, generator=g)
    b.batches = lambda: iter(x.split(4))
    return b


def _error(b: Block) -> float:
    """Relative error of the linear layers' outputs, weights and inputs in 8 bits, on inputs of the float block."""
    runner, total = BlockRunner(SPEC, 0), 0.0
    assert b.method is not None and b.batches is not None and b.activations != "float"
    found = dict(b.current)
    for name, grid in b.grids.items():
        b.quantized[name] = b.method.quantize(found[name].numpy(), grid)
    grids = activation_grids(b, b.activations)
    for group in b.groups:
        x = torch.cat([runner.input_of(group, found, batch).flatten(0, -2) for batch in b.batches()])
        for name in group:
            wanted = x @ found[name].T
            got = fake_quantized(x, grids[name]) @ torch.from_numpy(b.quantized[name].dequantize()).T
            total += float((got - wanted).square().sum() / wanted.square().sum())
    return total


@pytest.mark.parametrize("activations", ["dynamic", "static"])
def test_smoothing_keeps_the_block_and_lowers_the_error_in_8_bits(activations: Activations) -> None:
    plain, b = _error(_block(activations)), _block(activations)
    assert b.batches is not None
    runner, x = BlockRunner(SPEC, 0), next(b.batches())
    before = runner(b.current, x)
    smooth(b)
    assert float((runner(b.current, x) - before).abs().max()) < 1e-5 * float(before.abs().max())
    assert _error(b) < 0.5 * plain


def test_float_activations_need_no_smoothing() -> None:
    b = _block("float")
    smooth(b)
    assert all(b.current[n] is b.original[n] for n in b.original)


@pytest.mark.parametrize("activations", ["dynamic", "static"])
@pytest.mark.parametrize("grid", [GRID, int_grid(8, 32), affine_grid(6, 32), int_grid(4, -1, symmetric=True)])
def test_the_noise_is_what_rounding_really_adds(grid: Grid, activations: Literal["dynamic", "static"]) -> None:
    """Against rounding itself, min-max ranges: the estimate holds within a factor of two, scaled or not."""
    from edgeq.quantize.activations import DYNAMIC, asymmetric
    from edgeq.quantize.grids import min_max
    from edgeq.quantize.solvers.rtn import rounded

    g = torch.Generator().manual_seed(4)
    x = torch.randn(512, 64, generator=g) * torch.exp(0.5 * torch.randn(64, generator=g))
    w = torch.randn(32, 64, generator=g)
    sample = sample_of([x], w.square().sum(0))
    for columns in (torch.ones(64), torch.exp(0.5 * torch.randn(64, generator=g))):
        scaled = (w * columns).numpy()
        q = torch.from_numpy(rounded(scaled, min_max(scaled, grid), grid).dequantize())
        moved = x / columns
        static = asymmetric(float(moved.min()), float(moved.max()))
        read = fake_quantized(moved, DYNAMIC if activations == "dynamic" else static)
        wanted = x @ w.T
        real = float((read @ q.T - wanted).square().sum() / wanted.square().sum())
        assert 0.5 < noise(sample, [Reader.of(w, grid)], columns, activations) / real < 2.0


def test_activation_grids_are_shared_and_static_ones_fit_the_inputs() -> None:
    b = _block("static")
    assert b.method is not None
    for name, grid in b.grids.items():
        b.quantized[name] = b.method.quantize(b.current[name].numpy(), grid)
    del b.grids["layers.0.o"]  # stays float
    found = activation_grids(b, "static")
    assert set(found) == set(b.grids)
    assert found["layers.0.q"] is found["layers.0.v"] and found["layers.0.gate"] is found["layers.0.up"]
    assert all(g.kind == "static" and g.scale and np.isfinite(g.scale) for g in found.values())
    assert {g.kind for g in activation_grids(b, "dynamic").values()} == {"dynamic"}
