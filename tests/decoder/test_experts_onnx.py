"""Mixtures of experts as onnxruntime runs them: float graphs, and experts on any grid in both dialects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeq.decoder.torch_model import TorchModel
from edgeq.quantize.engine import quantize
from edgeq.recipe import Recipe, with_presets
from edgeq.registry import exporter

MIXTURES = ("mixtral", "qwen3_moe", "qwen2_moe", "olmoe", "gpt_oss", "granitemoe")
IDS = np.random.default_rng(7).integers(3, 160, 28).tolist()
TOLERANCE = 1e-4
MOVED = 1e-3  # of logits on quantized weights


@pytest.mark.parametrize("name", MIXTURES)
def test_float_graph_equals_transformers(tiny, onnx_runner, tmp_path, name):
    model = tiny(name)
    runner = onnx_runner(exporter("onnx").export(model.weights, tmp_path / "out"))
    for ids in (IDS[:1], IDS[:12], IDS):
        np.testing.assert_allclose(runner.logits(ids), model.reference(ids), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", MIXTURES)
def test_prefill_then_decode_equals_torch_steps(tiny, onnx_runner, tmp_path, name):
    model = tiny(name)
    runner = onnx_runner(exporter("onnx").export(model.weights, tmp_path / "out"))
    reference = TorchModel(model.weights)
    cache = reference.start()
    for part in (IDS[:7], *([i] for i in IDS[7:])):
        np.testing.assert_allclose(runner.step(part), reference.step(part, cache), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    ("name", "bits", "group", "symmetric"),
    [
        ("mixtral", 4, 32, False),
        ("mixtral", 4, -1, True),
        ("mixtral", 2, 32, False),
        ("qwen3_moe", 4, 32, True),
        ("qwen3_moe", 8, 32, False),
        ("qwen2_moe", 4, 32, False),
        ("gpt_oss", 4, 32, False),
        ("gpt_oss", 8, 32, True),
        ("granitemoe", 4, 64, False),
    ],
)
def test_quantized_experts_give_what_the_checkpoint_does(tiny, onnx_runner, tmp_path, name, bits, group, symmetric):
    recipe = Recipe("m", method="minmax", bits=bits, group_size=group, symmetric=symmetric, embed_group_size=32)
    checkpoint = quantize(tiny(name).weights, recipe, tmp_path / "q")
    runner = onnx_runner(exporter("onnx").export(checkpoint, tmp_path / "out", accuracy_level=0))
    found, expected = runner.logits(IDS), TorchModel(checkpoint).logits(IDS)
    assert np.abs(found - expected).max() < MOVED
    assert _divergence(expected, found) < 1e-4
    assert np.abs(expected - tiny(name).reference(IDS)).max() > (0.01 if bits == 8 else 0.1)  # it was quantized


@pytest.mark.parametrize(("name", "bits"), [("mixtral", 2), ("qwen2_moe", 4), ("gpt_oss", 4), ("qwen3_moe", 8)])
def test_int8_inputs_move_the_logits_a_little(tiny, onnx_runner, tmp_path, name, bits):
    """The fast kernels: codes are packed, and nothing is dequantized when the graph is loaded."""
    import onnx

    recipe = Recipe("m", method="minmax", bits=bits, group_size=32, embed_group_size=32)
    checkpoint = quantize(tiny(name).weights, recipe, tmp_path / "q")
    artifact = exporter("onnx").export(checkpoint, tmp_path / "out")
    ops = {n.op_type for n in onnx.load(artifact.path / "model.onnx", load_external_data=False).graph.node}
    assert "QMoE" in ops and not ops & {"MoE", "DequantizeLinear"}
    divergence = _divergence(TorchModel(checkpoint).logits(IDS), onnx_runner(artifact).logits(IDS))
    assert 0 < divergence < 0.05


def _divergence(p: Any, q: Any) -> float:
    """Mean over tokens of KL(p || q) of logits, in nats."""
    a, b = (x - x.max(-1, keepdims=True) for x in (p.astype(np.float64), q.astype(np.float64)))
    a, b = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (a, b))
    return float((np.exp(a) * (a - b)).sum(-1).mean())


STANDARD = {"dialect": "standard", "accuracy_level": 0}


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("mixtral", {"bits": 4, "group_size": 32}),
        ("mixtral", {"bits": 2, "group_size": 32}),
        ("qwen3_moe", {"bits": 8, "group_size": 32}),
        ("qwen3_moe", {"bits": 3, "group_size": 32}),
        ("qwen2_moe", {"grid": "affine", "group_size": 32}),
        ("olmoe", {"method": "nf4", "group_size": 32}),
        ("olmoe", {"bits": 8, "group_size": -1, "symmetric": True, "activations": "dynamic"}),
        ("gpt_oss", {"bits": 4, "group_size": 32}),
        ("gpt_oss", {"method": "nf4", "grid": "fp4", "group_size": 32}),
        ("granitemoe", {"bits": 4, "group_size": 64}),
    ],
)
def test_standard_operators_run_experts_on_any_grid(tiny, onnx_runner, tmp_path, name, recipe):
    import onnx

    made = Recipe(**with_presets({"model": "m", "method": "rtn", **recipe, "embed_group_size": 32}))
    checkpoint = quantize(tiny(name).weights, made, tmp_path / "q")
    artifact = exporter("onnx").export(checkpoint, tmp_path / "out", **STANDARD)
    file = str(artifact.path / "model.onnx")
    onnx.checker.check_model(file, full_check=True)
    assert {n.domain for n in onnx.load(file, load_external_data=False).graph.node} <= {"", "edgeq"}
    expected = TorchModel(checkpoint).logits(IDS)
    limit = 0.05 if "activations" in recipe else 1e-4  # the fused kernel's grids are a prompt's, not a token's
    assert _divergence(expected, onnx_runner(artifact).logits(IDS)) < limit


@pytest.mark.parametrize("name", ["mixtral", "gpt_oss"])
def test_onnxruntime_fuses_every_expert_s_product(tiny, tmp_path, name):
    """None is dequantized at every run, or at load."""
    import onnx
    import onnxruntime

    recipe = Recipe("m", method="minmax", bits=4, group_size=32, embed_group_size=32)
    checkpoint = quantize(tiny(name).weights, recipe, tmp_path / "q")
    artifact = exporter("onnx").export(checkpoint, tmp_path / "out", dialect="standard")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(str(artifact.path / "model.onnx"), options)
    nodes = onnx.load(tmp_path / "optimized.onnx", load_external_data=False).graph.node
    products = [n for n in nodes if n.op_type == "MatMulNBits"]
    spec = checkpoint.spec
    assert len(products) == spec.n_layers * (2 + 2 * spec.layers[0].ffn.experts) + 1
    assert "DequantizeLinear" not in {n.op_type for n in nodes}


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("mixtral", {"method": "omq", "budget": "6bpw", "target": "onnx", "group_size": 32}),
        ("qwen3_moe", {"bits": 3, "group_size": 32}),
        ("olmoe", {"method": "nf4", "group_size": 32}),
        ("qwen2_moe", {"grid": "affine", "group_size": 32}),
        ("gpt_oss", {"method": "nf4", "grid": "fp4", "group_size": 32}),
    ],
)
def test_experts_that_one_node_can_t_run_are_a_product_each(tiny, onnx_runner, tmp_path, name, recipe):
    made = Recipe(**with_presets({"model": "m", "method": "rtn", **recipe, "embed_group_size": 32}))
    checkpoint = quantize(tiny(name).weights, made, tmp_path / "q")
    roles = {n.rpartition("_")[2]: t.grid for n, t in checkpoint.manifest.tensors.items() if "layers.0.exp" in n}
    assert recipe.get("method") != "omq" or len({g.bits for g in roles.values()}) > 1
    artifact = exporter("onnx").export(checkpoint, tmp_path / "out", accuracy_level=0)
    found, expected = onnx_runner(artifact).logits(IDS), TorchModel(checkpoint).logits(IDS)
    assert _divergence(expected, found) < 1e-4


def test_groups_that_no_block_divides_are_not_for_one_node(tiny, tmp_path):
    from edgeq.exporters.onnx.moe import block_of
    from edgeq.model.spec import MoE
    from edgeq.scheme import int_grid

    spec = tiny("mixtral").weights.spec
    grids = [int_grid(4, g) for g in (32, 64, 32)]
    assert block_of(spec, MoE(4, 2, 96), grids) == 32  # the hidden size is 64
    assert block_of(spec, MoE(4, 2, 96), [int_grid(4, -1)] * 3) == 32
    assert block_of(spec, MoE(4, 2, 40), grids) is None
