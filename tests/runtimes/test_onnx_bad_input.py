"""Artifacts that are damaged, of another kind, or opened wrongly: one clear line each."""

from __future__ import annotations

import json
import shutil

import pytest

import edgeq
from edgeq.errors import EdgeqError


def fails(folder, message, **options):
    with pytest.raises(EdgeqError, match=message) as caught:
        edgeq.load(folder, **options)
    assert "\n" not in caught.value.line


@pytest.fixture
def copy(artifact, tmp_path):
    """A copy whose manifest lists no files, so that the runtime itself must notice what is wrong."""
    folder = tmp_path / "copy"
    shutil.copytree(artifact, folder)
    manifest = json.loads((folder / "edgeq.json").read_text())
    (folder / "edgeq.json").write_text(json.dumps({**manifest, "files": {}}))
    return folder


def test_not_an_artifact(tmp_path):
    fails(tmp_path / "nowhere", "no such artifact folder")
    fails(tmp_path, "holds no edgeq.json")


def test_missing_and_truncated_files(copy, artifact):
    data = copy / "model.onnx.data"
    content = data.read_bytes()
    data.write_bytes(content[: len(content) // 2])
    fails(copy, "onnxruntime cannot load the model")
    data.unlink()
    fails(copy, "onnxruntime cannot load the model")
    (copy / "model.onnx").unlink()
    fails(copy, "no model.onnx")
    (copy / "tokenizer.json").unlink()
    fails(copy, "no tokenizer.json")


def test_manifest_notices_truncation_first(artifact, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(artifact, folder)
    data = folder / "model.onnx.data"
    data.write_bytes(data.read_bytes()[:-1])
    fails(folder, "missing or truncated.*model.onnx.data")


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x07" * 500])
def test_graph_that_is_none(copy, content):
    (copy / "model.onnx").write_bytes(content)
    fails(copy, "onnxruntime cannot load the model|the graph has no input")


def _rename_input(model):
    for entry in model.graph.input:
        if entry.name == "input_ids":
            entry.name = "tokens"
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            if name == "input_ids":
                node.input[i] = "tokens"


def _extra_input(model):
    model.graph.input.append(_value("position_ids"))


def _no_logits(model):
    node = next(n for n in model.graph.node if "logits" in n.output)
    node.output[list(node.output).index("logits")] = "scores"
    next(o for o in model.graph.output if o.name == "logits").name = "scores"


def _open_width(model):
    for entry in (*model.graph.input, *model.graph.output):
        if entry.name.startswith(("past", "present")):
            entry.type.tensor_type.shape.dim[1].dim_param = "heads"


def _value(name):
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_rename_input, "no input input_ids"),
        (_extra_input, "wants an input 'position_ids'"),
        (_no_logits, "no output logits"),
        (_open_width, "has shape"),
    ],
)
def test_graph_of_another_kind(artifact, changed_artifact, tmp_path, change, message):
    fails(changed_artifact(artifact, tmp_path / "other", change), message)


def test_options(artifact):
    fails(artifact, "has no option 'thread'", thread=2)
    fails(artifact, "threads is 0", threads=0)
    fails(artifact, "context is -1", context=-1)
    fails(artifact, "knows 1024 positions", context=1025)
    fails(artifact, "no runtime named 'nothing'", runtime="nothing")


def test_missing_packages(artifact, monkeypatch):
    import edgeq.runtimes.onnxruntime as package

    monkeypatch.setattr(package, "find_spec", lambda name: None if name == "tokenizers" else object())
    assert package.OnnxRuntime().missing() == "tokenizers"
    fails(artifact, r"needs tokenizers.*pip install 'edgeq\[onnxruntime\]'")


def test_the_engine_reports_what_onnxruntime_says(artifact):
    with edgeq.load(artifact, threads=1, spin=False) as session:
        engine = session.engine
        engine._mask[:] = 1  # a mask that contradicts the number of tokens
        engine._one.clear_binding_inputs()
        with pytest.raises(EdgeqError, match="onnxruntime failed to run the model"):
            session.generate("a")
