"""Activation grids: what they round to, how a static range is found, and how a checkpoint's are used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.checkpoint.activation import ActivationGrid
from edgeq.checkpoint.manifest import StoredTensor
from edgeq.decoder.fake_quant import fake_quantized
from edgeq.decoder.torch_ops import TorchOps
from edgeq.errors import EdgeqError
from edgeq.jsonable import from_json, to_json
from edgeq.model.spec import MLP, Attention, Layer, ModelSpec
from edgeq.quantize.activations import asymmetric, entropy_threshold, lost_share, output_error, quantile, static_grid
from edgeq.quantize.sample import EXTREME, InputSample, sample_of
from edgeq.scheme import int_grid

SPEC = ModelSpec("tiny", "llama", 8, 10, (Layer(Attention(2, 1, 4, 0.5), MLP(16)),), tied=True, max_positions=16)


def _slow(x: npt.NDArray[np.float64], scale: float, zero: int, low: int, high: int) -> npt.NDArray[np.float64]:
    return (np.clip(np.rint(x / scale) + zero, low, high) - zero) * scale


@given(seed=st.integers(0, 10_000), bits=st.sampled_from([4, 8]), symmetric=st.booleans())
@settings(max_examples=50, deadline=None)
def test_dynamic_grids_round_every_token_to_its_own_range(seed: int, bits: int, symmetric: bool) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((5, 24)) * np.exp(3 * rng.standard_normal((5, 1)))).astype(np.float32)
    grid = ActivationGrid("dynamic", bits, symmetric)
    found = fake_quantized(torch.from_numpy(x), grid).numpy()
    for row, got in zip(x.astype(np.float64), found, strict=True):
        span = (
            np.abs(row).max() / (2 ** (bits - 1) - 1)
            if symmetric
            else (max(row.max(), 0) - min(row.min(), 0)) / (2**bits - 1)
        )
        assert np.abs(got - row).max() <= 0.5001 * span * (1 if symmetric else 2)  # a rounded zero point may clip
        codes = got / span
        assert np.abs(codes - np.rint(codes)).max() < 1e-3  # whole steps
        assert len(np.unique(got)) <= 2**bits


@given(seed=st.integers(0, 10_000), low=st.floats(-50, 0), high=st.floats(0.01, 50))
@settings(max_examples=50, deadline=None)
def test_static_grids_round_as_the_formula_says(seed: int, low: float, high: float) -> None:
    grid = asymmetric(low, high)
    assert grid.scale is not None and grid.zero_point is not None
    x = np.random.default_rng(seed).standard_normal((4, 9)).astype(np.float32) * 20
    wanted = _slow(x.astype(np.float64), grid.scale, grid.zero_point, 0, 255)
    off = np.abs(fake_quantized(torch.from_numpy(x), grid).numpy() - wanted)
    assert np.count_nonzero(off > 1e-3) <= 1  # float32 may decide a tie otherwise
    assert off.max() <= grid.scale * 1.001
    assert float(fake_quantized(torch.zeros(1), grid)) == 0  # zero is exact


def test_a_token_of_zeros_stays_zero_and_dtypes_are_kept() -> None:
    for grid in (ActivationGrid(), ActivationGrid(symmetric=False), asymmetric(0.0, 0.0)):
        out = fake_quantized(torch.zeros(2, 3, dtype=torch.bfloat16), grid)
        assert out.dtype == torch.bfloat16 and not out.any()


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "static"},
        {"kind": "dynamic", "scale": 1.0, "zero_point": 0},
        {"kind": "static", "scale": 0.0, "zero_point": 0},
        {"kind": "static", "scale": 1.0, "zero_point": 300, "symmetric": False},
        {"bits": 1},
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(EdgeqError):
        ActivationGrid(**fields)


def test_the_manifest_keeps_it_and_reads_entries_without() -> None:
    stored = StoredTensor("a", (4, 8), int_grid(8, -1, symmetric=True), activation=asymmetric(-1.0, 3.0))
    assert from_json(StoredTensor, to_json(stored)) == stored
    old = {k: v for k, v in to_json(stored).items() if k != "activation"}
    assert from_json(StoredTensor, old).activation is None


def test_a_sample_keeps_the_extreme_tokens_and_stands_for_all() -> None:
    g = torch.Generator().manual_seed(0)
    batches = [torch.randn(700, 6, generator=g), torch.randn(1000, 6, generator=g)]
    batches[1][123] *= 1e4
    sample = sample_of(batches, torch.ones(6))
    assert float(sample.weight.sum()) == pytest.approx(1700)
    assert any(torch.equal(row, batches[1][123]) for row in sample.x)
    assert len(sample.x) < 80 and int((sample.weight == 1).sum()) == 2 * EXTREME
    whole = torch.cat(batches)
    torch.testing.assert_close(sample.high, whole.amax(0))
    torch.testing.assert_close(sample.low, whole.amin(0))
    torch.testing.assert_close(sample.power, whole.square().mean(0))
    # By its share, a token counts for what it loses of its own output, not for its size.
    assert sample.mean(sample.x.square().sum(1), shared=True) < 10 * 6 < sample.mean(sample.x.square().sum(1))
    few = sample_of([torch.ones(3, 6)], torch.ones(6))
    assert len(few.x) == 3 and float(few.weight.sum()) == 3


def test_quantile_counts_by_weight() -> None:
    magnitude = torch.tensor([[1.0], [2.0], [3.0]])
    weight = torch.tensor([8.0, 1.0, 1.0]).double()
    assert [quantile(magnitude, weight, q) for q in (0.5, 0.85, 1.0)] == [1.0, 2.0, 3.0]


def test_a_static_range_clips_where_that_pays_and_not_where_it_does_not() -> None:
    g = torch.Generator().manual_seed(1)
    x = torch.randn(400, 32, generator=g)
    x[0, 0] = 300.0
    sample = InputSample(x, *[torch.ones(400).double()] * 2, x.amin(0), x.amax(0), x.square().mean(0))
    idle = torch.randn(16, 32, generator=g)
    idle[:, 0] = 0  # nobody reads the outlier's channel: clip it
    grid = static_grid(sample, idle)
    assert grid.scale is not None and grid.scale * 255 < 20
    busy = torch.randn(16, 32, generator=g)
    busy[:, 0] = 5.0  # its loss would outweigh all else
    assert static_grid(sample, busy).scale == pytest.approx((300 - float(x.min())) / 255, rel=0.2)
    for weight in (idle, busy):
        whole = asymmetric(float(x.min()), 300.0)
        assert output_error(sample, weight, static_grid(sample, weight)) <= output_error(sample, weight, whole)


def test_an_input_that_8_bits_would_ruin_gets_16() -> None:
    x = torch.randn(512, 32, generator=torch.Generator().manual_seed(5))
    x[0, 3] = 3000.0  # every other token would round to zero, and clipping this one would lose its layer's output
    weight = torch.randn(16, 32, generator=torch.Generator().manual_seed(6))
    sample = sample_of([x], weight.square().sum(0))
    grid = static_grid(sample, weight)
    assert grid.bits == 16 and lost_share(sample, weight, grid) < 0.01
    x[0, 3] = 3.0
    assert static_grid(sample_of([x], weight.square().sum(0)), weight).bits == 8


def test_the_entropy_threshold_ignores_a_lone_outlier() -> None:
    magnitude = torch.randn(200, 100, generator=torch.Generator().manual_seed(2)).abs()
    magnitude[0, 0] = 40.0
    assert 3.0 < entropy_threshold(magnitude, torch.ones(200).double()) < 25.0
    assert entropy_threshold(torch.zeros(2, 2), torch.ones(2).double()) == 0.0


class _Quantized:
    """Weights that also say what inputs are rounded to, as a checkpoint does."""

    spec = SPEC

    def __init__(self, grid: ActivationGrid | None) -> None:
        self.grid = grid
        self.asked: list[str] = []

    def names(self) -> Sequence[str]:
        return ()

    def load(self, name: str) -> npt.NDArray[np.float32]:
        return np.eye(8, dtype=np.float32)

    def activation(self, name: str) -> ActivationGrid | None:
        self.asked.append(name)
        return self.grid

    def tokenizer_files(self) -> dict[str, Path | bytes]:
        return {}


def test_the_torch_backend_rounds_the_inputs_of_linear_layers() -> None:
    x = torch.randn(1, 3, 8, generator=torch.Generator().manual_seed(3))
    grid = asymmetric(-1.0, 1.0)
    out = TorchOps(_Quantized(grid)).linear(x, ("layers.0.q", "layers.0.k"))
    torch.testing.assert_close(out, fake_quantized(x, grid).repeat(1, 1, 2))
    assert torch.equal(TorchOps(_Quantized(None)).linear(x, ("layers.0.q",)), x)
