"""Standard operators over caches in place: every architecture against transformers, also in other runtimes."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeq.artifact import Artifact
from edgeq.decoder.torch_model import TorchModel
from edgeq.errors import EdgeqError
from edgeq.registry import exporter

EVERY = tuple(runpy.run_path(str(Path(__file__).with_name("conftest.py")))["ARCHITECTURES"])
IDS = np.random.default_rng(7).integers(3, 160, 28).tolist()
SHORT = 12
CAPACITY = 40
TOLERANCE = 1e-4


def export(model, out: Path, **options) -> Artifact:
    return exporter("onnx").export(model.weights, out, dialect="standard", kv_buffer="shared", **options)


@pytest.mark.parametrize("name", EVERY)
def test_logits_equal_transformers_with_no_operator_of_a_runtime_s_own(tiny, onnx_runner, tmp_path: Path, name):
    model = tiny(name)
    artifact = export(model, tmp_path / "out")
    file = artifact.path / "model.onnx"
    onnx.checker.check_model(str(file), full_check=True)
    written = onnx.load(file, load_external_data=False)
    assert {n.domain for n in written.graph.node} == {""}
    assert (written.ir_version, [(o.domain, o.version) for o in written.opset_import]) == (12, [("", 24)])
    runner = onnx_runner(artifact, CAPACITY)
    for length in (SHORT, len(IDS)):
        theirs = model.reference(IDS[:length])
        np.testing.assert_allclose(runner.logits(IDS[:length]), theirs, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", EVERY)
def test_prefill_then_decode_past_the_window_equals_torch_steps(tiny, onnx_runner, tmp_path: Path, name):
    model = tiny(name)
    runner = onnx_runner(export(model, tmp_path / "out"), CAPACITY)
    reference = TorchModel(model.weights)
    cache = reference.start()
    for part in (IDS[:7], *([i] for i in IDS[7:])):
        np.testing.assert_allclose(runner.step(part), reference.step(part, cache), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", ["phi3-longrope", "llama"])
def test_a_longer_mask_prepares_for_a_longer_sequence(tiny, onnx_runner, tmp_path: Path, name):
    model = tiny(name)
    runner = onnx_runner(export(model, tmp_path / "out"), CAPACITY)
    rows = []
    for start in range(0, len(IDS), 7):
        end = start + 7
        mask = np.concatenate((np.ones((1, end), np.int64), np.zeros((1, len(IDS) - end), np.int64)), 1)
        rows.append(runner.step(IDS[start:end], attention_mask=mask))
    np.testing.assert_allclose(np.concatenate(rows), model.reference(IDS), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", ["smollm2", "mistral", "gemma2", "gpt_oss"])
def test_sequences_of_a_batch_have_places_of_their_own(tiny, tmp_path: Path, name):
    """The shorter prompt is padded at its end; its next token takes the place of the first padding."""
    import onnxruntime

    model = tiny(name)
    artifact = export(model, tmp_path / "out")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(artifact.path / "model.onnx"), options)
    long, short = IDS[:14], IDS[3:12]
    shape = (2, artifact.model["kv_heads"], CAPACITY, artifact.model["head_dim"])
    past = {i.name: np.zeros(shape, np.float32) for i in session.get_inputs() if "past" in i.name}
    ids = np.array([long, short + [0] * 5])
    mask = np.array([[1] * 14, [1] * 9 + [0] * 5])
    logits, *cache = session.run(None, {"input_ids": ids, "attention_mask": mask, **past})
    np.testing.assert_allclose(logits[0], model.reference(long), atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(logits[1, :9], model.reference(short), atol=TOLERANCE, rtol=0)
    past = dict(zip(past, cache, strict=True))
    mask = np.array([[1] * 15, [1] * 10 + [0] * 5])
    logits = session.run(["logits"], {"input_ids": np.array([[77], [78]]), "attention_mask": mask, **past})[0]
    np.testing.assert_allclose(logits[0, 0], model.reference([*long, 77])[-1], atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(logits[1, 0], model.reference([*short, 78])[-1], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", ["smollm2", "gemma2", "mistral", "qwen3", "mixtral"])
def test_onnx_s_reference_evaluator_gives_the_same_logits(tiny, tmp_path: Path, name):
    """Without gpt_oss: the evaluator of onnx 1.22 takes an output left out (keys, where sinks need the scores behind
    them) for the next node's input left out."""
    from onnx.reference import ReferenceEvaluator

    model = tiny(name)
    artifact = export(model, tmp_path / "out")
    evaluator = ReferenceEvaluator(onnx.load(artifact.path / "model.onnx"))
    shape = (1, artifact.model["kv_heads"], CAPACITY, artifact.model["head_dim"])
    feeds = {n: np.zeros(shape, np.float32) for n in evaluator.input_names if "past" in n}
    feeds |= {"input_ids": np.array([IDS]), "attention_mask": np.ones((1, len(IDS)), np.int64)}
    logits = evaluator.run(["logits"], feeds | {"logits_from": np.array([0])})[0][0]
    np.testing.assert_allclose(logits, model.reference(IDS), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", ["llama", "mistral", "phi3-longrope", "gpt_oss"])
def test_genai_generates_the_tokens_of_the_reference(tiny, same_in_genai, tmp_path: Path, name):
    model = tiny(name)
    artifact = export(model, tmp_path / "out")
    config = json.loads((artifact.path / "genai_config.json").read_text())
    assert config["search"]["past_present_share_buffer"] is True
    same_in_genai(model, artifact, 40)


def test_caches_that_grow_are_of_standard_operators_alone(tiny, tmp_path: Path):
    with pytest.raises(EdgeqError, match="in a shared buffer") as caught:
        exporter("onnx").export(tiny("llama").weights, tmp_path / "out", kv_buffer="growing")
    assert "--dialect standard" in str(caught.value.hint)
    with pytest.raises(EdgeqError, match="'wide' is not known"):
        exporter("onnx").export(tiny("llama").weights, tmp_path / "out", kv_buffer="wide")
    assert not list(tmp_path.glob("out*"))
