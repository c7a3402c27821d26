"""Mixtures of experts as onnxruntime runs them: float graphs, quantized experts, and what its kernels can't take."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeq.decoder.torch_model import TorchModel
from edgeq.errors import EdgeqError
from edgeq.quantize.engine import quantize
from edgeq.recipe import Recipe
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


def test_experts_of_several_widths_are_refused_before_anything_is_written(tiny, tmp_path):
    recipe = Recipe("m", method="omq", bits=4, budget="4bpw", target="onnx", group_size=32)
    checkpoint = quantize(tiny("mixtral").weights, recipe, tmp_path / "q")
    roles = {n.rpartition("_")[2]: t.grid.bits for n, t in checkpoint.manifest.tensors.items() if "layers.0.exp" in n}
    if len(set(roles.values())) == 1:
        pytest.skip("the allocation gave all the same width")
    with pytest.raises(EdgeqError, match="different widths"):
        exporter("onnx").export(checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_groups_that_no_block_divides_are_refused(tiny, tmp_path):
    from edgeq.exporters.onnx.moe import block_of
    from edgeq.model.spec import MoE
    from edgeq.scheme import int_grid

    spec = tiny("mixtral").weights.spec
    grids = [int_grid(4, g) for g in (32, 64, 32)]
    assert block_of(spec, MoE(4, 2, 96), grids) == 32  # the hidden size is 64
    assert block_of(spec, MoE(4, 2, 96), [int_grid(4, -1)] * 3) == 32
    assert block_of(spec, MoE(4, 2, 40), grids) is None
