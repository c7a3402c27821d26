"""The graph in standard operators alone: every architecture against transformers, also in other runtimes."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeq.artifact import Artifact
from edgeq.decoder.torch_model import TorchModel
from edgeq.registry import exporter

EVERY = tuple(runpy.run_path(str(Path(__file__).with_name("conftest.py")))["ARCHITECTURES"])
IDS = np.random.default_rng(7).integers(3, 160, 28).tolist()
SHORT = 12
TOLERANCE = 1e-4


def export(model, out: Path) -> Artifact:
    return exporter("onnx").export(model.weights, out, dialect="standard")


@pytest.mark.parametrize("name", EVERY)
def test_logits_equal_transformers_with_no_operator_of_a_runtime_s_own(tiny, onnx_runner, tmp_path: Path, name):
    model = tiny(name)
    artifact = export(model, tmp_path / "out")
    file = artifact.path / "model.onnx"
    onnx.checker.check_model(str(file), full_check=True)
    written = onnx.load(file, load_external_data=False)
    assert {n.domain for n in written.graph.node} == {""}
    assert (written.ir_version, [(o.domain, o.version) for o in written.opset_import]) == (11, [("", 23)])
    runner = onnx_runner(artifact)
    for length in (SHORT, len(IDS)):
        theirs = model.reference(IDS[:length])
        np.testing.assert_allclose(runner.logits(IDS[:length]), theirs, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", EVERY)
def test_prefill_then_decode_past_the_window_equals_torch_steps(tiny, onnx_runner, tmp_path: Path, name):
    model = tiny(name)
    runner = onnx_runner(export(model, tmp_path / "out"))
    reference = TorchModel(model.weights)
    cache = reference.start()
    for part in (IDS[:7], *([i] for i in IDS[7:])):
        np.testing.assert_allclose(runner.step(part), reference.step(part, cache), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", ["phi3-longrope", "llama"])
def test_a_longer_mask_prepares_for_a_longer_sequence(tiny, onnx_runner, tmp_path: Path, name):
    model = tiny(name)
    runner = onnx_runner(export(model, tmp_path / "out"))
    rows = []
    for start in range(0, len(IDS), 7):
        end = start + 7
        mask = np.concatenate((np.ones((1, end), np.int64), np.zeros((1, len(IDS) - end), np.int64)), 1)
        rows.append(runner.step(IDS[start:end], attention_mask=mask))
    np.testing.assert_allclose(np.concatenate(rows), model.reference(IDS), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", ["smollm2", "mistral", "gemma2", "qwen2_moe", "gpt_oss"])
def test_a_padded_batch_gives_what_its_sequences_give_alone(tiny, tmp_path: Path, name):
    import onnxruntime

    model = tiny(name)
    artifact = export(model, tmp_path / "out")
    session = onnxruntime.InferenceSession(str(artifact.path / "model.onnx"))
    short, padding = IDS[:9], 5
    ids = np.array([IDS[:14], [0] * padding + short])
    mask = np.array([[1] * 14, [0] * padding + [1] * 9])
    places = np.maximum(np.cumsum(mask, 1) - 1, 0)
    shape = (2, artifact.model["kv_heads"], 0, artifact.model["head_dim"])
    empty = {i.name: np.zeros(shape, np.float32) for i in session.get_inputs() if "past" in i.name}
    feeds = {"input_ids": ids, "attention_mask": mask, "position_ids": places, **empty}
    logits = session.run(["logits"], feeds)[0]
    np.testing.assert_allclose(logits[0], model.reference(IDS[:14]), atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(logits[1, padding:], model.reference(short), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", ["smollm2", "gemma2", "mistral", "qwen3", "mixtral", "gpt_oss"])
def test_onnx_s_reference_evaluator_gives_the_same_logits(tiny, tmp_path: Path, name):
    """An oracle that is not onnxruntime. The same holds of any runtime that conforms."""
    from onnx.reference import ReferenceEvaluator

    model = tiny(name)
    artifact = export(model, tmp_path / "out")
    evaluator = ReferenceEvaluator(onnx.load(artifact.path / "model.onnx"))
    shape = (1, artifact.model["kv_heads"], 0, artifact.model["head_dim"])
    feeds = {n: np.zeros(shape, np.float32) for n in evaluator.input_names if "past" in n}
    feeds |= {"input_ids": np.array([IDS]), "attention_mask": np.ones((1, len(IDS)), np.int64)}
    feeds |= {"position_ids": np.arange(len(IDS))[None], "logits_from": np.array([0])}
    logits = evaluator.run(["logits"], feeds)[0][0]
    np.testing.assert_allclose(logits, model.reference(IDS), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    "name", ["llama", "mistral", "gemma2", "phi3-longrope", "smollm3", "olmo2", "qwen3_moe", "gpt_oss"]
)
def test_genai_generates_the_tokens_of_the_reference(tiny, same_in_genai, tmp_path: Path, name):
    model = tiny(name)
    artifact = export(model, tmp_path / "out")
    config = json.loads((artifact.path / "genai_config.json").read_text())
    assert config["search"]["past_present_share_buffer"] is False
    same_in_genai(model, artifact, 64)
