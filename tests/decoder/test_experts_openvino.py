"""Mixtures of experts and attention sinks as OpenVINO runs them, against transformers."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.checkpoint.codebooks import codebook
from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.decoder.torch_model import TorchModel
from edgeq.errors import EdgeqError
from edgeq.model.tensors import tensors
from edgeq.quantize.engine import quantize
from edgeq.recipe import Recipe, with_presets
from edgeq.registry import exporter
from edgeq.scheme import Scheme, codebook_grid, int_grid

ov = pytest.importorskip("openvino")

HERE = Path(__file__).parent
MIXTURES: tuple[str, ...] = runpy.run_path(str(HERE / "conftest.py"))["MIXTURES"]
DENSE_TESTS = runpy.run_path(str(HERE / "test_openvino_architectures.py"))
Runner: Any = DENSE_TESTS["Runner"]
EXACT: dict[str, Any] = DENSE_TESTS["EXACT"]
IDS = np.random.default_rng(7).integers(3, 160, 28).tolist()
TOLERANCE = 1e-4
MOVED = 2e-4  # of logits on quantized weights


@pytest.mark.parametrize("name", MIXTURES)
def test_logits_are_those_of_transformers_in_one_pass_and_step_by_step(tiny, tmp_path, name):
    model = tiny(name)
    artifact = exporter("openvino").export(model.weights, tmp_path / "out", **EXACT)
    runner = Runner(artifact.path)
    for ids in (IDS[:1], IDS[:12], IDS):
        np.testing.assert_allclose(runner.logits(ids), model.reference(ids), atol=TOLERANCE, rtol=0)
    reference = TorchModel(model.weights)
    cache = reference.start()
    runner.logits(IDS[:7])
    reference.step(IDS[:7], cache)
    for i in IDS[7:]:
        np.testing.assert_allclose(runner.step([i]), reference.step([i], cache), atol=TOLERANCE, rtol=0)
    assert exporter("openvino").read_back(artifact, model.weights) == []


@pytest.mark.parametrize(
    ("name", "stored", "recipe"),
    [
        ("mixtral", "u4", {"bits": 4, "group_size": 32}),
        ("mixtral", "i4", {"bits": 4, "group_size": -1, "symmetric": True}),
        ("mixtral", "u4", {"bits": 2, "group_size": 32}),
        ("qwen3_moe", "i4", {"bits": 4, "group_size": 32, "symmetric": True}),
        ("qwen3_moe", "u8", {"bits": 8, "group_size": 32}),
        ("qwen2_moe", "u4", {"bits": 4, "group_size": 32}),
        ("olmoe", "i4", {"method": "ternary", "group_size": 64}),
        ("gpt_oss", "u4", {"bits": 4, "group_size": 32}),
        ("gpt_oss", "i8", {"bits": 8, "group_size": 32, "symmetric": True}),
        ("granitemoe", "u4", {"bits": 4, "group_size": 64}),
    ],
)
def test_quantized_experts_give_what_the_checkpoint_does(tiny, tmp_path, name, stored, recipe):
    made = Recipe(**with_presets({"model": "m", "method": "rtn", **recipe, "embed_group_size": 32}))
    checkpoint = quantize(tiny(name).weights, made, tmp_path / "q")
    same_as_the_checkpoint(checkpoint, tmp_path, stored)
    assert np.abs(TorchModel(checkpoint).logits(IDS) - tiny(name).reference(IDS)).max() > 0.01  # it was quantized


def same_as_the_checkpoint(checkpoint: Any, folder: Path, stored: str) -> None:
    """Logits and weights; and a token reads the compressed weights of its experts alone."""
    artifact = exporter("openvino").export(checkpoint, folder / "out", **EXACT)
    runner = Runner(artifact.path)
    np.testing.assert_allclose(runner.logits(IDS), TorchModel(checkpoint).logits(IDS), atol=MOVED, rtol=0)
    products = [n for n in runner.compiled.get_runtime_model().get_ops() if kind(n) == "GatherMatmul"]
    assert products and "Tile" not in runner.layers()
    assert {n.input_value(1).get_element_type().get_type_name() for n in products} == {stored}
    assert exporter("openvino").read_back(artifact, checkpoint) == []


def kind(node: Any) -> str:
    info = node.get_rt_info()["layerType"]
    return getattr(info, "value", str(info))


class Fp4Experts:
    """A float model whose experts are what gpt-oss's files hold: fp4 values in groups of 32, scales powers of two."""

    def __init__(self, weights: Any) -> None:
        self.spec, self.names, self.tokenizer_files = weights.spec, weights.names, weights.tokenizer_files
        self._weights = weights
        self._experts = {t.name: t.shape for t in tensors(weights.spec) if t.expert and t.linear}

    @property
    def scheme(self) -> Scheme:
        return Scheme("fp4", "rtn", codebook_grid("fp4", 32), codebook_grid("fp4", 32))

    def load(self, name: str) -> Any:
        grid = codebook_grid("fp4", 32)
        if name not in self._experts:
            weight = self._weights.load(name)
            spec = next(t for t in tensors(self.spec) if t.name == name)
            if not spec.linear and spec.role != "embed":
                return weight
        shape = self._experts.get(name) or self._weights.load(name).shape
        draw = np.random.default_rng(len(name))
        rows = int(np.prod(shape[:-1]))
        codes = draw.integers(0, len(codebook("fp4")), (rows, shape[-1])).astype(np.uint8)
        scales = (2.0 ** draw.integers(-6, -3, (rows, shape[-1] // 32))).astype(grid.scale_dtype.replace("f", "float"))
        return QuantizedTensor(grid, codes, scales)


def test_mxfp4_values_are_stored_as_integers(tiny, tmp_path):
    same_as_the_checkpoint(Fp4Experts(tiny("gpt_oss").weights), tmp_path, "i8")


def test_two_sequences_at_once_each_padded_as_it_needs(tiny, tmp_path):
    model = tiny("qwen2_moe")
    artifact = exporter("openvino").export(model.weights, tmp_path / "out", **EXACT)
    request = Runner(artifact.path).compiled.create_infer_request()
    short, long = IDS[:5], IDS[8:17]
    mask = np.array([[0] * 4 + [1] * 5, [1] * 9])
    feeds = {
        "input_ids": np.array([[0] * 4 + short, long]),
        "attention_mask": mask,
        "position_ids": np.maximum(mask.cumsum(-1) - 1, 0),
        "beam_idx": np.arange(2, dtype=np.int32),
    }
    logits = request.infer(feeds)["logits"]
    np.testing.assert_allclose(logits[0, 4:], model.reference(short), atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(logits[1], model.reference(long), atol=TOLERANCE, rtol=0)


def test_experts_that_would_be_unpacked_are_refused(tiny, tmp_path):
    checkpoint = quantize(
        tiny("mixtral").weights, Recipe(**with_presets({"model": "m", "method": "nf4"})), tmp_path / "q"
    )
    with pytest.raises(EdgeqError, match="integer zero points, no nf4 ones"):
        exporter("openvino").export(checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_gate_and_up_with_biases_need_one_grid(tiny, tmp_path, monkeypatch):
    from edgeq.exporters.openvino import experts

    monkeypatch.setattr(experts, "grid_of", lambda _, t: int_grid(8 if t.role == "experts_up" else 4, 32))
    experts.check_experts(tiny("mixtral").weights)  # each its own product
    with pytest.raises(EdgeqError, match="one matrix there"):
        exporter("openvino").export(tiny("gpt_oss").weights, tmp_path / "out")
    assert not (tmp_path / "out").exists()
