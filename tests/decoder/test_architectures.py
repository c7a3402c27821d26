"""Every dense architecture against transformers: the torch backend, and the exported float graph under onnxruntime."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

from edgeq.decoder.torch_model import TorchModel
from edgeq.registry import exporter

DENSE: tuple[str, ...] = runpy.run_path(str(Path(__file__).with_name("conftest.py")))["DENSE"]
IDS = np.random.default_rng(7).integers(3, 160, 28).tolist()  # longer than every window and trained length here
SHORT = 12  # within the trained length of the long-context models
TOLERANCE = 1e-4


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("length", [SHORT, len(IDS)])
def test_torch_backend_equals_transformers(tiny, name, length):
    model = tiny(name)
    ours, theirs = TorchModel(model.weights).logits(IDS[:length]), model.reference(IDS[:length])
    assert np.ptp(theirs) > 1.0
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", DENSE)
def test_torch_prefill_then_decode_equals_one_pass(tiny, name):
    model = TorchModel(tiny(name).weights)
    stop = SHORT if "longrope" in name or "phi4" in name else len(IDS)  # there frequencies change with the length
    cache = model.start()
    steps = [model.step(IDS[:7], cache), *(model.step([i], cache) for i in IDS[7:stop])]
    np.testing.assert_allclose(np.concatenate(steps), model.logits(IDS[:stop]), atol=TOLERANCE, rtol=0)


def test_streaming_weights_gives_the_same_logits(tiny):
    weights = tiny("qwen3").weights
    kept, streamed = TorchModel(weights, keep=True), TorchModel(weights, keep=False)
    np.testing.assert_array_equal(kept.logits(IDS), streamed.logits(IDS))


@pytest.mark.parametrize("name", DENSE)
def test_onnx_float_graph_equals_transformers(tiny, onnx_runner, tmp_path: Path, name):
    model = tiny(name)
    artifact = exporter("onnx").export(model.weights, tmp_path / "out")
    check(artifact.path / "model.onnx")
    runner = onnx_runner(artifact)
    for length in (SHORT, len(IDS)):
        theirs = model.reference(IDS[:length])
        np.testing.assert_allclose(runner.logits(IDS[:length]), theirs, atol=TOLERANCE, rtol=0)


def check(file: Path) -> None:
    """The checker of onnx, told that SimplifiedLayerNormalization is onnxruntime's own operator."""
    import onnx

    model = onnx.load(file, load_external_data=False)
    for node in model.graph.node:
        if node.op_type == "SimplifiedLayerNormalization":
            node.domain = "com.microsoft"
    checked = file.with_name("checked.onnx")
    onnx.save(model, checked)
    onnx.checker.check_model(str(checked), full_check=True)


@pytest.mark.parametrize("name", DENSE)
def test_onnx_prefill_then_decode_equals_torch_steps(tiny, onnx_runner, tmp_path: Path, name):
    model = tiny(name)
    runner = onnx_runner(exporter("onnx").export(model.weights, tmp_path / "out"))
    reference = TorchModel(model.weights)
    cache = reference.start()
    for part in (IDS[:7], *([i] for i in IDS[7:])):
        np.testing.assert_allclose(runner.step(part), reference.step(part, cache), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", ["phi3-longrope", "llama"])
def test_a_mask_that_ends_in_zeros_prepares_for_a_longer_sequence(tiny, onnx_runner, tmp_path: Path, name):
    """Prefill in chunks, each with a mask as long as the whole prompt, is one pass over it."""
    model = tiny(name)
    runner = onnx_runner(exporter("onnx").export(model.weights, tmp_path / "out"), capacity=len(IDS))
    rows = []
    for start in range(0, len(IDS), 7):
        end = start + 7
        mask = np.concatenate((np.ones((1, end), np.int64), np.zeros((1, len(IDS) - end), np.int64)), 1)
        rows.append(runner.step(IDS[start:end], attention_mask=mask))
    np.testing.assert_allclose(np.concatenate(rows), model.reference(IDS), atol=TOLERANCE, rtol=0)
