"""One `.ort` file instead of a graph and its data: the same logits, in genai too, and what it can't be."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest

import edgeq.exporters.onnx.ort_format as ort_format
from edgeq.artifact import read_artifact
from edgeq.decoder.torch_model import TorchModel
from edgeq.errors import EdgeqError
from edgeq.exporters.onnx import OnnxExporter
from edgeq.model.spec import MoE
from edgeq.runtimes.onnxruntime.engine import open_engine
from edgeq.scheme import codebook_grid, int_grid

IDS = np.random.default_rng(5).integers(0, 160, 20).tolist()


def logits(folder):
    engine = open_engine(folder / "model.ort", context=64, threads=1)
    found = np.concatenate((engine.logits(IDS[:-1]).copy(), engine.decode(IDS[-1])[None]))
    engine.close()
    return found


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("grid", [None, int_grid(4, 32), int_grid(2, 32, symmetric=True), codebook_grid("nf4", 64)])
def test_the_logits_are_the_checkpoints(weights, tmp_path, grid, dtype):
    source = weights(grid, bias=True)
    artifact = OnnxExporter().export(source, tmp_path / "out", format="ort", dtype=dtype, accuracy_level=0)
    expected = TorchModel(source).logits(IDS)
    exact = 2e-5 if dtype == "float32" else 0.01
    np.testing.assert_allclose(logits(artifact.path), expected, atol=exact * np.ptp(expected), rtol=0)
    names = {f.name for f in artifact.path.iterdir()}
    assert {"model.ort", "genai_config.json", "edgeq.json"} <= names and not any(".onnx" in n for n in names)
    assert read_artifact(artifact.path).options["format"] == "ort"


def test_a_mixture(weights, tmp_path):
    source = weights(int_grid(4, 32), family="mixtral", experts=MoE(4, 2, 64))
    artifact = OnnxExporter().export(source, tmp_path / "out", format="ort", accuracy_level=0)
    expected = TorchModel(source).logits(IDS)
    np.testing.assert_allclose(logits(artifact.path), expected, atol=2e-5 * np.ptp(expected), rtol=0)


def test_a_tied_embedding_is_in_it_once(weights, tmp_path):
    sizes = []
    for tied in (True, False):
        source = weights(int_grid(8, 32), tied=tied, vocab=4000, layers=1)
        artifact = OnnxExporter().export(source, tmp_path / str(tied), format="ort")
        sizes.append((artifact.path / "model.ort").stat().st_size)
    assert sizes[1] - sizes[0] >= 4000 * 64


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_products_with_8_bit_inputs_are_fused_in_it(make, tmp_path, kind):
    """And hold on x86-64 without VNNI: a session makes nothing else of such a file."""
    source = make(kind)
    artifact = OnnxExporter().export(source, tmp_path / "out", format="ort")
    plain = OnnxExporter().export(source, tmp_path / "plain")
    engine = open_engine(plain.path / "model.onnx", context=64, threads=1, rounded_inputs=True)
    expected = np.concatenate((engine.logits(IDS[:-1]).copy(), engine.decode(IDS[-1])[None]))
    np.testing.assert_allclose(logits(artifact.path), expected, atol=1e-3 * np.ptp(expected), rtol=0)


def test_genai_loads_it(weights, tmp_path):
    genai = pytest.importorskip("onnxruntime_genai")
    artifact = OnnxExporter().export(weights(int_grid(4, 32)), tmp_path / "out", format="ort")
    config = json.loads((artifact.path / "genai_config.json").read_text())
    assert config["model"]["decoder"]["filename"] == "model.ort"
    model = genai.Model(str(artifact.path))
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(do_sample=False, max_length=64)
    generator = genai.Generator(model, parameters)
    generator.append_tokens(np.array(IDS[:9], np.int32))
    generator.generate_next_token()
    engine = open_engine(artifact.path / "model.ort", context=64, threads=1)
    assert generator.get_sequence(0)[9] == int(engine.prefill(IDS[:9]).argmax())


def test_it_can_be_told_from_where_logits_are_wanted(weights, tmp_path):
    artifact = OnnxExporter().export(weights(int_grid(4, 32)), tmp_path / "out", format="ort")
    session = ort.InferenceSession(str(artifact.path / "model.ort"))
    assert [i.name for i in session.get_overridable_initializers()] == ["logits_from"]


def test_what_is_too_large_is_refused_before_a_file_is_written(weights, tmp_path):
    source = weights(int_grid(4, 32))
    source.spec = replace(source.spec, vocab_size=1_000_000, hidden_size=4096)
    with pytest.raises(EdgeqError, match=r"weights take .* GB, and an \.ort file has less than 2 GiB") as told:
        OnnxExporter().export(source, tmp_path / "out", format="ort", dtype="float16")
    assert "--format onnx" in told.value.hint
    assert not list(tmp_path.iterdir())


def test_what_turns_out_too_large_leaves_nothing(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(ort_format, "check_size", lambda *given: None)
    monkeypatch.setattr(ort_format, "LARGEST", 1000)
    monkeypatch.setattr("edgeq.exporters.onnx.checks.check_size", lambda *given: None)
    with pytest.raises(EdgeqError, match="the model takes"):
        OnnxExporter().export(weights(int_grid(4, 32)), tmp_path / "out", format="ort")
    assert not list(tmp_path.iterdir())


def test_standard_operators_and_unknown_formats_are_refused(weights, tmp_path):
    with pytest.raises(EdgeqError, match="standard operators are of no use"):
        OnnxExporter().export(weights(int_grid(4, 32)), tmp_path / "out", format="ort", dialect="standard")
    with pytest.raises(EdgeqError, match="format 'tflite' is not known"):
        OnnxExporter().export(weights(int_grid(4, 32)), tmp_path / "out", format="tflite")
    assert not list(tmp_path.iterdir())


def test_reading_back_says_why_not(weights, tmp_path):
    source = weights(int_grid(4, 32))
    artifact = OnnxExporter().export(source, tmp_path / "out", format="ort")
    with pytest.raises(EdgeqError, match="not read back"):
        OnnxExporter().read_back(artifact, source)
