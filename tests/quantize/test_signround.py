"""SignRound: starts where it was told to, and lowers the block's error."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgeq.checkpoint.weights import dense
from edgeq.model.tensors import tensors
from edgeq.model.weights import open_source
from edgeq.quantize.block import Block
from edgeq.quantize.grids import find
from edgeq.quantize.refine.signround import Effort, Tuned, signround
from edgeq.quantize.run_block import BlockRunner
from edgeq.quantize.solvers.rtn import rounded
from edgeq.scheme import GGML_GRIDS, affine_grid, codebook_grid, int_grid

GRIDS = [int_grid(3, 32), int_grid(4, 32, symmetric=True), affine_grid(2, 32), GGML_GRIDS["Q4_1"]]
GROUPS = (("q", "k", "v"), ("o",), ("gate", "up"), ("down",))


@pytest.fixture
def block(tiny):
    """Layer 1 of a tiny model, rounded to nearest, with inputs and targets."""

    def make(grid) -> Block:
        source = open_source(str(tiny(str(abs(hash(grid))))))
        own = {t.name: t for t in tensors(source.spec) if t.layer == 1}
        values = {n: torch.from_numpy(dense(source.load(n)) * (1 if t.role == "norm" else 8)) for n, t in own.items()}
        x = torch.from_numpy(np.random.default_rng(0).standard_normal((12, 24, 64)).astype(np.float32))
        with torch.no_grad():
            target = BlockRunner(source.spec, 1)(values, x)
        grids = {n: grid for n, t in own.items() if t.linear}
        made = Block(
            spec=source.spec,
            index=1,
            original=values,
            current=dict(values),
            grids=grids,
            groups=tuple(tuple(f"layers.1.{r}" for r in g) for g in GROUPS),
            batches=lambda: iter(x.split(5)),
            targets=lambda: iter(target.split(5)),
        )
        for name in grids:
            weight = values[name].numpy()
            made.quantized[name] = rounded(weight, find(weight, None, grid), grid)
        return made

    return make


def output_error(block: Block) -> float:
    values = {**block.current, **{n: torch.from_numpy(q.dequantize()) for n, q in block.quantized.items()}}
    x, target = torch.cat(list(block.batches())), torch.cat(list(block.targets()))
    with torch.no_grad():
        return float((BlockRunner(block.spec, block.index)(values, x) - target).square().mean())


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_the_blocks_error_falls(block, grid):
    made = block(grid)
    before = output_error(made)
    signround(made, Effort(60, batch=4))
    assert output_error(made) < 0.9 * before
    for q in made.quantized.values():
        assert int(q.codes.max()) < q.grid.levels


@pytest.mark.parametrize("grid", [*GRIDS, GGML_GRIDS["Q8_0"]], ids=str)
def test_starts_at_the_codes_it_is_given(grid):
    """Even codes that are not the nearest, as GPTQ's are."""
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((8, 96)).astype(np.float32)
    start = rounded(weight, find(weight, None, grid), grid)
    moved = np.clip(start.codes + rng.integers(-2, 3, start.codes.shape), 0, grid.levels - 1).astype(np.uint8)
    start = type(start).of(grid, moved, start.parameters)
    tuned = Tuned("w", torch.from_numpy(weight), start)
    again = tuned.quantized()
    assert np.array_equal(again.codes, start.codes)
    assert np.array_equal(again.scales, start.scales)
    np.testing.assert_allclose(tuned.weight().detach().numpy(), start.dequantize(), rtol=1e-5, atol=1e-6)


def test_gradient_reaches_offsets_and_scales():
    weight = np.random.default_rng(1).standard_normal((8, 64)).astype(np.float32)
    grid = affine_grid(3, 32)
    tuned = Tuned("w", torch.from_numpy(weight), rounded(weight, find(weight, None, grid), grid))
    (tuned.weight() * torch.arange(64.0)).sum().backward()
    for part in (tuned.offset, tuned.factor, tuned.lift):
        assert part.grad is not None and part.grad.abs().sum() > 0


def test_reproducible_and_leaves_codebooks_alone(block):
    first, second = block(int_grid(3, 32)), None
    kept = first.quantized["layers.1.o"] = rounded(
        first.current["layers.1.o"].numpy(),
        find(first.current["layers.1.o"].numpy(), None, codebook_grid("nf4", 32)),
        codebook_grid("nf4", 32),
    )
    start = dict(first.quantized)
    signround(first, Effort(20, batch=4), seed=5)
    second = dict(first.quantized)
    first.quantized = dict(start)
    torch.manual_seed(99)
    signround(first, Effort(20, batch=4), seed=5)
    for name, q in first.quantized.items():
        assert np.array_equal(q.codes, second[name].codes)
    assert first.quantized["layers.1.o"] is kept
