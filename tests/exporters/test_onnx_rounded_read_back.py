"""Products with 8-bit inputs, read back: codes, scales and zero points, and what inputs are rounded to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgeq.checkpoint.activation import ActivationGrid
from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.exporters.onnx import OnnxExporter
from edgeq.model.spec import MoE
from edgeq.scheme import int_grid

CASES: list[tuple[str, dict[str, Any]]] = [
    ("dynamic", {}),
    ("dynamic", {"grid": int_grid(8, -1), "bias": True, "tied": False}),
    ("dynamic", {"symmetric": True}),
    ("dynamic", {"symmetric": True, "grid": int_grid(4, 32)}),
    ("dynamic", {"grid": int_grid(4, 32), "bias": True}),
    ("static", {}),
    ("static", {"symmetric": True, "bias": True}),
    ("static", {"grid": int_grid(8, -1), "bias": True, "tied": False}),
    ("static", {"bits": 16, "bias": True}),
    ("static", {"grid": int_grid(4, 32)}),
    ("static", {"grid": int_grid(4, 32), "symmetric": True}),
    ("static", {"grid": int_grid(4, 32), "bits": 16}),
    ("static", {"overrides": {"v": int_grid(8, 32)}}),
]


@pytest.mark.parametrize("dialect", ["contrib", "standard"])
@pytest.mark.parametrize(("kind", "options"), CASES)
def test_all_of_it_is_the_checkpoints(make, tmp_path, kind, options, dialect):
    source = _made(make, kind, options)
    artifact = OnnxExporter().export(source, tmp_path / "out", dialect=dialect)
    assert OnnxExporter().read_back(artifact, source) == []


def test_of_one_scale_a_tensor_too(make, tmp_path):
    source = make("dynamic")
    artifact = OnnxExporter().export(source, tmp_path / "out", activation_scales="tensor")
    assert OnnxExporter().read_back(artifact, source) == []


def test_of_experts_too(make, tmp_path):
    source = make("dynamic", experts=MoE(4, 2, 32), family="mixtral")
    artifact = OnnxExporter().export(source, tmp_path / "out")
    assert OnnxExporter().read_back(artifact, source) == []
    source.grids = lambda name: None if ".experts_" in name else ActivationGrid("dynamic", 8, False)
    assert len(OnnxExporter().read_back(artifact, source)) == 4  # gate with up and down of two layers
    source.grids = lambda name: ActivationGrid("dynamic", 8, ".experts_down" in name)
    wrong = OnnxExporter().read_back(artifact, source)
    assert wrong == [f"the inputs of layers.{i}.experts_down were read back with another rounding" for i in (0, 1)]


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_another_code_scale_or_zero_point_is_found(make, tmp_path, kind):
    source = make(kind, grid=int_grid(8, -1), layers=1)
    artifact = OnnxExporter().export(source, tmp_path / "out")
    load = source.inner.load
    for change in (_other_code, _other_scale, _other_zero):
        source.inner.load = lambda name, change=change: change(load(name)) if name == "layers.0.k" else load(name)
        assert OnnxExporter().read_back(artifact, source) == ["layers.0.k was read back with other values"]


@pytest.mark.parametrize("change", ["scale", "zero_point"])
def test_another_range_is_found(make, tmp_path, change):
    source = make("static", layers=1)
    artifact = OnnxExporter().export(source, tmp_path / "out")
    grids = source.grids

    def other(name: str) -> ActivationGrid:
        grid = grids(name)
        if name != "layers.0.down":
            return grid
        more = {"scale": float(np.nextafter(np.float32(grid.scale), np.float32(1))), "zero_point": grid.zero_point + 1}
        return replace(grid, **{change: more[change]})

    source.grids = other
    wrong = "the inputs of layers.0.down were read back with another rounding"
    assert OnnxExporter().read_back(artifact, source) == [wrong]


def test_a_kind_that_the_file_does_not_have_is_found(make, tmp_path):
    source = make("static", layers=1)
    artifact = OnnxExporter().export(source, tmp_path / "out")
    source.grids = lambda name: ActivationGrid("dynamic", 8, False)
    assert len(OnnxExporter().read_back(artifact, source)) == 4  # products
    source.grids = lambda name: None
    assert len(OnnxExporter().read_back(artifact, source)) == 4


def test_a_byte_changed_in_the_file_is_found(make, tmp_path):
    source = make("static", layers=1)
    artifact = OnnxExporter().export(source, tmp_path / "out")
    at = _offset(artifact.path / "model.onnx", "layers.0.down.codes")
    data = bytearray((artifact.path / "model.onnx.data").read_bytes())
    data[at] ^= 1
    (artifact.path / "model.onnx.data").write_bytes(data)
    assert OnnxExporter().read_back(artifact, source) == ["layers.0.down was read back with other values"]


def _made(make: Callable[..., Any], kind: str, options: dict[str, Any]) -> Any:
    rest = {n: v for n, v in options.items() if n != "overrides"}
    source = make(kind, **rest)
    source.inner.overrides |= options.get("overrides", {})
    return source


def _offset(path: Path, name: str) -> int:
    stored = {t.name: t for t in onnx.load(path, load_external_data=False).graph.initializer}
    return next(int(e.value) for e in stored[name].external_data if e.key == "offset")


def _other_code(weight: QuantizedTensor) -> QuantizedTensor:
    codes = weight.codes.copy()
    codes[0, 0] ^= 1
    return replace(weight, codes=codes)


def _other_scale(weight: QuantizedTensor) -> QuantizedTensor:
    return replace(weight, scales=np.nextafter(weight.scales, np.inf).astype(weight.scales.dtype))


def _other_zero(weight: QuantizedTensor) -> QuantizedTensor:
    assert weight.zero_points is not None
    return replace(weight, zero_points=weight.zero_points ^ 1)
