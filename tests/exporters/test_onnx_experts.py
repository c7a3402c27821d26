"""Exported mixtures: the data file is as large as estimated, in one node a layer or in products."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.checkpoint.weights import Weight
from edgeq.estimate.onnx_file import onnx_data_bytes
from edgeq.model.spec import MoE
from edgeq.registry import exporter
from edgeq.scheme import GGML_GRIDS, Grid, affine_grid, codebook_grid, int_grid

SIZES = {"hidden": 256, "vocab": 1024, "tied": False}
SHARED = MoE(8, 2, 128, shared_intermediate=384, shared_gate=True, routing="all")
OSS = MoE(8, 2, 128, router_bias=True, expert_bias=True, limit=7.0)


@pytest.mark.parametrize("dialect", ["contrib", "standard"])
@pytest.mark.parametrize("grid", [int_grid(4, 32), int_grid(8, 64), int_grid(2, 32), int_grid(4, -1, symmetric=True)])
@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("mixtral", {"experts": MoE(8, 2, 128)}),
        ("qwen2_moe", {"experts": SHARED, "bias": True}),
        ("gpt_oss", {"experts": OSS, "bias": True, "sinks": True}),
    ],
)
def test_the_data_file_is_as_large_as_estimated(weights, tmp_path, family, fields, grid: Grid, dialect):
    model = weights(grid, family=family, **SIZES, **fields)
    artifact = exporter("onnx").export(model, tmp_path / "out", dialect=dialect)
    size = (artifact.path / "model.onnx.data").stat().st_size
    assert size == onnx_data_bytes(model.spec, model.scheme, dialect=dialect)


@pytest.mark.parametrize("dialect", ["contrib", "standard"])
@pytest.mark.parametrize("grid", [codebook_grid("nf4", 32), int_grid(3, 32), affine_grid(4, 32), GGML_GRIDS["Q4_0"]])
def test_so_it_is_where_every_expert_is_a_product(weights, tmp_path, dialect, grid: Grid):
    model = weights(grid, family="gpt_oss", experts=OSS, bias=True, sinks=True, **SIZES)
    artifact = exporter("onnx").export(model, tmp_path / "out", dialect=dialect)
    size = (artifact.path / "model.onnx.data").stat().st_size
    assert size == onnx_data_bytes(model.spec, model.scheme, dialect=dialect)


@pytest.mark.parametrize("dialect", ["contrib", "standard"])
def test_so_it_is_in_float16(weights, tmp_path, dialect):
    model = weights(int_grid(4, 32), family="gpt_oss", experts=OSS, bias=True, sinks=True, **SIZES)
    artifact = exporter("onnx").export(model, tmp_path / "out", dialect=dialect, dtype="float16")
    size = (artifact.path / "model.onnx.data").stat().st_size
    assert size == onnx_data_bytes(model.spec, model.scheme, dialect=dialect, half=True)


@pytest.mark.parametrize("experts", [MoE(4, 2, 24), MoE(4, 2, 64, activation="gelu"), MoE(130, 2, 32)])
def test_experts_that_the_kernels_lack_are_products_too(weights, tmp_path, experts):
    import onnx

    model = weights(int_grid(4, 32), family="mixtral", experts=experts)
    artifact = exporter("onnx").export(model, tmp_path / "out")
    ops = [n.op_type for n in onnx.load(artifact.path / "model.onnx", load_external_data=False).graph.node]
    assert ("QMoE" in ops) == (experts.experts == 130)
    assert (artifact.path / "model.onnx.data").stat().st_size == onnx_data_bytes(model.spec, model.scheme)


def test_a_float_mixture_needs_no_blocks(weights, tmp_path):
    model = weights(experts=MoE(4, 2, 24), family="mixtral")
    assert model.load("layers.0.experts_up").shape == (4, 24, 64)
    assert exporter("onnx").export(model, tmp_path / "out").scheme == "fp32"


FAMILIES = [
    ("mixtral", {"experts": MoE(8, 2, 128)}),
    ("qwen2_moe", {"experts": SHARED, "bias": True}),
    ("gpt_oss", {"experts": OSS, "bias": True, "sinks": True}),
]
FORMS = [("contrib", 4), ("contrib", 0), ("standard", 4)]


@pytest.mark.parametrize(("dialect", "level"), FORMS)
@pytest.mark.parametrize("grid", [None, int_grid(4, 32), int_grid(8, -1, symmetric=True), codebook_grid("nf4", 32)])
@pytest.mark.parametrize(("family", "fields"), FAMILIES)
def test_every_expert_is_read_back_bit_for_bit(weights, tmp_path, family, fields, grid, dialect, level):
    model = weights(grid, family=family, **SIZES, **fields)
    artifact = exporter("onnx").export(model, tmp_path / "out", dialect=dialect, accuracy_level=level)
    assert exporter("onnx").read_back(artifact, model) == []


@pytest.mark.parametrize("dialect", ["contrib", "standard"])
@pytest.mark.parametrize("name", ["experts_up", "experts_down_bias", "router", "sinks"])
def test_another_value_is_found(weights, tmp_path, dialect, name):
    model = weights(int_grid(4, 32), family="gpt_oss", experts=OSS, bias=True, sinks=True, **SIZES)
    artifact = exporter("onnx").export(model, tmp_path / "out", dialect=dialect)
    load = model.load

    def other(asked: str) -> Weight:
        weight = load(asked)
        if asked != f"layers.1.{name}":
            return weight
        if not isinstance(weight, QuantizedTensor):
            return weight + np.float32(1e-6)
        codes = weight.codes.copy()
        codes[-1, -1] ^= 1
        return replace(weight, codes=codes)

    model.load = other
    assert exporter("onnx").read_back(artifact, model) == [f"layers.1.{name} was read back with other values"]
