"""Exported mixtures: the data file is as large as estimated, and what onnxruntime's kernels can't take is refused."""

from __future__ import annotations

import pytest

from edgeq.errors import EdgeqError
from edgeq.estimate.onnx_file import onnx_data_bytes
from edgeq.model.spec import MoE
from edgeq.registry import exporter
from edgeq.scheme import Grid, int_grid

SIZES = {"hidden": 256, "vocab": 1024, "tied": False}
SHARED = MoE(8, 2, 128, shared_intermediate=384, shared_gate=True, routing="all")
OSS = MoE(8, 2, 128, router_bias=True, expert_bias=True, limit=7.0)


@pytest.mark.parametrize("grid", [int_grid(4, 32), int_grid(8, 64), int_grid(2, 32), int_grid(4, -1, symmetric=True)])
@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("mixtral", {"experts": MoE(8, 2, 128)}),
        ("qwen2_moe", {"experts": SHARED, "bias": True}),
        ("gpt_oss", {"experts": OSS, "bias": True, "sinks": True}),
    ],
)
def test_the_data_file_is_as_large_as_estimated(weights, tmp_path, family, fields, grid: Grid):
    model = weights(grid, family=family, **SIZES, **fields)
    artifact = exporter("onnx").export(model, tmp_path / "out")
    assert (artifact.path / "model.onnx.data").stat().st_size == onnx_data_bytes(model.spec, model.scheme)


@pytest.mark.parametrize(
    ("experts", "overrides", "what"),
    [
        (MoE(4, 2, 24), {}, "blocks of 16 to 128 that divide 64 and 24"),
        (MoE(4, 2, 64, activation="gelu"), {}, "silu, not gelu"),
    ],
)
def test_experts_that_the_kernels_lack_are_refused_before_anything_is_written(
    weights, tmp_path, experts, overrides, what
):
    with pytest.raises(EdgeqError, match=f"experts of layer 0: .*{what}"):
        exporter("onnx").export(weights(int_grid(4, 32), overrides, experts=experts), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_float_mixture_needs_no_blocks(weights, tmp_path):
    model = weights(experts=MoE(4, 2, 24), family="mixtral")
    assert model.load("layers.0.experts_up").shape == (4, 24, 64)
    assert exporter("onnx").export(model, tmp_path / "out").scheme == "fp32"
