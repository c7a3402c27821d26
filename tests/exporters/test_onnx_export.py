"""Artifacts of quantized checkpoints under onnxruntime, against the torch backend on the dequantized weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeq.artifact import read_artifact
from edgeq.decoder.torch_model import TorchModel
from edgeq.errors import EdgeqError
from edgeq.exporters.onnx import OnnxExporter
from edgeq.scheme import F32, Grid, Scheme, int_grid

IDS = np.random.default_rng(5).integers(0, 160, 20).tolist()


def run(artifact, ids, **feeds):
    """All logits of one pass, and the session's input names."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(artifact.path / "model.onnx"), options)
    model = artifact.model
    empty = np.zeros((1, model["kv_heads"], 0, model["head_dim"]), np.float32)
    feeds |= {f"past_key_values.{i}.{p}": empty for i in range(model["layers"]) for p in ("key", "value")}
    mask = np.ones((1, len(ids)), np.int64)
    return session.run(["logits"], {**feeds, "input_ids": np.array([ids], np.int64), "attention_mask": mask})[0][0]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("bits", "group"), [(4, 16), (4, 32), (4, 64), (4, 48), (4, -1), (8, 32), (2, 32)])
def test_float_arithmetic_gives_the_logits_of_the_checkpoint(weights, tmp_path, bits, group, symmetric):
    source = weights(int_grid(bits, group, symmetric=symmetric))
    artifact = OnnxExporter().export(source, tmp_path / "out", accuracy_level=0)
    expected = TorchModel(source).logits(IDS)
    np.testing.assert_allclose(run(artifact, IDS), expected, atol=2e-5 * np.ptp(expected), rtol=0)


@pytest.mark.parametrize("spec", [{"tied": False}, {"bias": True}, {"hidden": 80}, {"hidden": 80, "tied": False}])
def test_untied_biased_and_ragged_models(weights, tmp_path, spec):
    """80 channels leave a ragged last block of 16 in a row of 32s."""
    source = weights(int_grid(4, 32), **spec)
    artifact = OnnxExporter().export(source, tmp_path / "out", accuracy_level=0)
    expected = TorchModel(source).logits(IDS)
    np.testing.assert_allclose(run(artifact, IDS), expected, atol=2e-5 * np.ptp(expected), rtol=0)


def test_int8_arithmetic_stays_close(weights, tmp_path):
    """Accuracy level 4 rounds every matmul's input to 8 bits a block; over two layers that stays within 5 %."""
    source = weights(int_grid(4, 32))
    artifact = OnnxExporter().export(source, tmp_path / "out")
    expected = TorchModel(source).logits(IDS)
    error = np.linalg.norm(run(artifact, IDS) - expected) / np.linalg.norm(expected - expected.mean())
    assert 0 < error < 0.05


def test_mixed_grids_in_one_group_of_matrices(weights, tmp_path):
    source = weights(int_grid(4, 32), overrides={"v": int_grid(8, 32), "up": int_grid(4, 64)})
    artifact = OnnxExporter().export(source, tmp_path / "out", accuracy_level=0)
    expected = TorchModel(source).logits(IDS)
    np.testing.assert_allclose(run(artifact, IDS), expected, atol=2e-5 * np.ptp(expected), rtol=0)


def test_last_logits_only_when_asked(weights, tmp_path):
    artifact = OnnxExporter().export(weights(int_grid(4, 32)), tmp_path / "out", accuracy_level=0)
    everything = run(artifact, IDS)
    last = run(artifact, IDS, **{artifact.model["logits_from"]: np.array([-1], np.int64)})
    assert last.shape == (1, 160)
    np.testing.assert_allclose(last[0], everything[-1], atol=1e-5 * np.ptp(everything), rtol=0)


def test_tied_embedding_is_stored_once(weights, tmp_path):
    artifact = OnnxExporter().export(weights(int_grid(4, 32)), tmp_path / "out")
    graph = onnx.load(artifact.path / "model.onnx", load_external_data=False).graph
    gather = next(n for n in graph.node if n.op_type == "GatherBlockQuantized")
    head = next(n for n in graph.node if n.output[0] == "logits")
    assert head.op_type == "MatMulNBits"
    assert gather.input[0] == head.input[1]


def test_versions_are_pinned(weights, tmp_path):
    artifact = OnnxExporter().export(weights(), tmp_path / "out")
    model = onnx.load(artifact.path / "model.onnx", load_external_data=False)
    assert model.ir_version == 10
    assert {o.domain: o.version for o in model.opset_import} == {"": 21, "com.microsoft": 1}


def test_manifest_reads_back_and_names_every_file(weights, tmp_path):
    source = weights(int_grid(4, 32))
    source.files = {"tokenizer.json": b"{}", "tokenizer_config.json": b'{"a": 1}'}
    seen: list[tuple[int, int, str]] = []
    OnnxExporter().export(source, tmp_path / "out", progress=lambda *p: seen.append(p), plan={"tps": 3.0})
    artifact = read_artifact(tmp_path / "out")
    assert set(artifact.files) == {
        "model.onnx",
        "model.onnx.data",
        "genai_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert (artifact.runtime, artifact.scheme, artifact.plan) == ("onnxruntime", "test", {"tps": 3.0})
    assert artifact.model["eos_ids"] == [2] and artifact.model["kv_heads"] == 2
    assert [s[0] for s in seen] == list(range(1, seen[-1][1] + 1))
    genai = json.loads((tmp_path / "out" / "genai_config.json").read_text())
    assert genai["model"]["decoder"]["num_key_value_heads"] == 2


def test_context_bounds_the_rotary_tables(weights, tmp_path):
    artifact = OnnxExporter().export(weights(), tmp_path / "out", context=24)
    tables = onnx.load(artifact.path / "model.onnx").graph.initializer
    assert next(t for t in tables if t.name == "rope_cos_0").dims[0] == 24
    assert artifact.model["max_positions"] == 24


@pytest.mark.parametrize(
    ("grid", "options", "word"),
    [
        (Grid("gguf", 4, 256, ggml_type="Q9_Z"), {}, "Q9_Z"),
        (Grid("codebook", 4, 32, "none", codebook="nf5"), {}, "nf5"),
        (F32, {"dialect": "ancient"}, "dialect"),
        (F32, {"pack": "tiny"}, "packing"),
        (F32, {"accuracy_level": 2}, "accuracy level"),
        (F32, {"context": 65}, "context"),
    ],
)
def test_refused_before_a_file_is_written(weights, tmp_path, grid, options, word):
    source = weights()
    source.scheme = Scheme("bad", "rtn", grid, grid)
    with pytest.raises(EdgeqError, match=word):
        OnnxExporter().export(source, tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


def test_a_failure_on_the_way_leaves_nothing(weights, tmp_path):
    source = weights(int_grid(4, 32))
    load = source.load
    source.load = lambda name: load("nothing" if name == "layers.1.down" else name)
    with pytest.raises(StopIteration):
        OnnxExporter().export(source, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_existing_output_needs_force(weights, tmp_path: Path):
    out = tmp_path / "out"
    OnnxExporter().export(weights(), out)
    with pytest.raises(EdgeqError, match="exists"):
        OnnxExporter().export(weights(), out)
    OnnxExporter().export(weights(), out, force=True)
