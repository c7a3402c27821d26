"""The data file that the estimator foresees is the one that the exporter writes, to the byte."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgeq.estimate.onnx_file import onnx_data_bytes
from edgeq.exporters.onnx import OnnxExporter
from edgeq.model.spec import Rope
from edgeq.scheme import GGML_GRIDS, Grid, affine_grid, codebook_grid, int_grid

GRIDS: dict[str, Grid] = {
    "int4": int_grid(4, 32),
    "int2-row": int_grid(2, -1),
    "int3-sym": int_grid(3, 64, symmetric=True),
    "int5-g40": int_grid(5, 40),
    "int7": int_grid(7, 16),
    "affine4": affine_grid(4, 32),
    **{n: codebook_grid(n, 64) for n in ("nf4", "fp4", "ternary")},
    "nf4-double": codebook_grid("nf4", 64, double=True),
    **{k: GGML_GRIDS[k] for k in ("Q4_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS")},
}
SPECS: list[dict[str, object]] = [{}, {"hidden": 80, "tied": False, "bias": True, "layers": 1}]


@pytest.mark.parametrize("dialect", ["contrib", "standard"])
@pytest.mark.parametrize("pack", ["fast", "small"])
@pytest.mark.parametrize("name", GRIDS)
def test_to_the_byte(weights, tmp_path, name, pack, dialect):
    for i, spec in enumerate(SPECS):
        source = weights(GRIDS[name], **spec)
        artifact = OnnxExporter().export(source, tmp_path / str(i), dialect=dialect, pack=pack)
        written = (artifact.path / "model.onnx.data").stat().st_size
        assert onnx_data_bytes(source.spec, source.scheme, dialect=dialect, pack=pack) == written


@pytest.mark.parametrize("dialect", ["contrib", "standard"])
@pytest.mark.parametrize("name", ["int4", "int2-row", "int5-g40", "affine4", "nf4", "Q3_K", "Q4_K"])
def test_to_the_byte_in_float16(weights, tmp_path, name, dialect):
    for i, spec in enumerate(SPECS):
        source = weights(GRIDS[name], **spec)
        artifact = OnnxExporter().export(source, tmp_path / str(i), dialect=dialect, dtype="float16")
        written = (artifact.path / "model.onnx.data").stat().st_size
        assert onnx_data_bytes(source.spec, source.scheme, dialect=dialect, half=True) == written


@pytest.mark.parametrize("dialect", ["contrib", "standard"])
def test_two_sets_of_rotary_tables_norms_of_heads_and_a_sandwich(weights, tmp_path, dialect):
    source = weights(int_grid(4, 32))
    first, second = source.spec.layers
    factors = (("short_factor", (1.0,) * 8), ("long_factor", (2.0,) * 8))
    rope = Rope(10000.0, 16, "longrope", factors, original_max_positions=32)
    layers = (
        replace(first, mixer=replace(first.mixer, rope=rope, qk_norm="full")),
        replace(second, mixer=replace(second.mixer, rope=None, qk_norm="head")),
    )
    source.spec = replace(source.spec, layers=layers, norm_layout="sandwich", max_positions=512)
    artifact = OnnxExporter().export(source, tmp_path / "out", dialect=dialect)
    written = (artifact.path / "model.onnx.data").stat().st_size
    assert onnx_data_bytes(source.spec, source.scheme, dialect=dialect) == written
