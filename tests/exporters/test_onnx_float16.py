"""ONNX exports that compute in float16: the checkpoint's logits within its rounding, read back, in genai, refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from edgeq.artifact import Artifact
from edgeq.decoder.torch_model import TorchModel
from edgeq.errors import EdgeqError
from edgeq.exporters.onnx import OnnxExporter
from edgeq.model.spec import MoE
from edgeq.runtimes.onnxruntime.engine import open_engine
from edgeq.scheme import GGML_GRIDS, Grid, affine_grid, codebook_grid, int_grid

IDS = np.random.default_rng(5).integers(0, 160, 20).tolist()
GRIDS: dict[str, Grid | None] = {
    "float": None,
    "int4": int_grid(4, 32),
    "int4-sym": int_grid(4, 32, symmetric=True),
    "int2": int_grid(2, 32),
    "int8": int_grid(8, 32),
    "int3": int_grid(3, 32),
    "affine4": affine_grid(4, 32),
    "nf4": codebook_grid("nf4", 64),
    "Q4_K": GGML_GRIDS["Q4_K"],
}
DIALECTS = pytest.mark.parametrize("dialect", ["contrib", "standard"])


def made(source: Any, out: Path, **options: Any) -> Artifact:
    return OnnxExporter().export(source, out, dtype="float16", **{"accuracy_level": 0, **options})


def logits(artifact: Artifact, ids: list[int]) -> np.ndarray[Any, Any]:
    """The prompt in one pass and the last token by itself."""
    level = int(artifact.options["accuracy_level"])
    engine = open_engine(artifact.path / "model.onnx", context=64, threads=1, accuracy_level=level)
    most = engine.logits(ids[:-1]).copy()
    found = np.concatenate((most, engine.decode(ids[-1])[None]))
    engine.close()
    return found


@DIALECTS
@pytest.mark.parametrize("name", GRIDS)
def test_the_logits_are_the_checkpoints_within_float16(weights, tmp_path, name, dialect):
    source = weights(GRIDS[name], bias=True, tied=name != "int8")
    artifact = made(source, tmp_path / "out", dialect=dialect)
    expected = TorchModel(source).logits(IDS)
    np.testing.assert_allclose(logits(artifact, IDS), expected, atol=0.01 * np.ptp(expected), rtol=0)
    assert OnnxExporter().read_back(artifact, source) == []


@DIALECTS
def test_nothing_in_the_graph_is_float32(weights, tmp_path, dialect):
    artifact = made(weights(int_grid(4, 32)), tmp_path / "out", dialect=dialect)
    graph = onnx.load(artifact.path / "model.onnx", load_external_data=False).graph
    kinds = {t.data_type for t in graph.initializer}
    kinds |= {v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)}
    assert TensorProto.FLOAT16 in kinds and TensorProto.FLOAT not in kinds
    assert artifact.options["dtype"] == "float16" and artifact.options["kv_dtype"] == "f16"
    if dialect == "standard":
        onnx.checker.check_model(str(artifact.path / "model.onnx"), full_check=True)


@pytest.mark.parametrize("name", ["int4", "int2", "int4-sym"])
def test_onnxruntime_fuses_the_standard_products(weights, tmp_path, name):
    import onnxruntime

    artifact = made(weights(GRIDS[name], layers=1), tmp_path / "out", dialect="standard")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(str(artifact.path / "model.onnx"), options)
    made_of = [n.op_type for n in onnx.load(tmp_path / "optimized.onnx", load_external_data=False).graph.node]
    assert (made_of.count("MatMulNBits"), made_of.count("DequantizeLinear")) == (5, 0)


@DIALECTS
@pytest.mark.parametrize("grid", [None, int_grid(4, 32), codebook_grid("nf4", 32)])
def test_experts(weights, tmp_path, grid, dialect):
    source = weights(grid, family="mixtral", experts=MoE(4, 2, 64), hidden=64)
    artifact = made(source, tmp_path / "out", dialect=dialect)
    expected = TorchModel(source).logits(IDS)
    np.testing.assert_allclose(logits(artifact, IDS), expected, atol=0.02 * np.ptp(expected), rtol=0)
    assert OnnxExporter().read_back(artifact, source) == []


@pytest.mark.parametrize("kv_dtype", ["int8", "int4"])
def test_an_integer_cache_is_its_own(weights, tmp_path, kv_dtype, monkeypatch):
    from edgeq.decoder.kv_ranges import kv_ranges
    from edgeq.exporters.onnx import export
    from edgeq.exporters.onnx.kv_cache import Caches

    source = weights(int_grid(4, 32))
    caches = Caches(kv_dtype, kv_ranges(source, [IDS]))
    monkeypatch.setattr(export, "calibrated", lambda *given: caches)
    artifact = made(source, tmp_path / "out", kv_dtype=kv_dtype)
    expected = TorchModel(source).logits(IDS)
    error = np.linalg.norm(logits(artifact, IDS) - expected) / np.linalg.norm(expected - expected.mean())
    assert error < {"int8": 0.02, "int4": 0.5}[kv_dtype]


@DIALECTS
def test_genai_gives_the_greedy_tokens_of_our_session(weights, tmp_path, dialect):
    genai = pytest.importorskip("onnxruntime_genai")
    artifact = made(weights(int_grid(4, 32)), tmp_path / "out", dialect=dialect)
    engine = open_engine(artifact.path / "model.onnx", context=64, threads=1, accuracy_level=0)
    row, ours = engine.prefill(IDS[:9]), []
    for _ in range(8):
        row = row.copy()
        row[2] = -np.inf  # no end before the length asked for
        ours.append(int(row.argmax()))
        row = engine.decode(ours[-1])
    model = genai.Model(str(artifact.path))
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(do_sample=False, max_length=64, min_length=17)
    generator = genai.Generator(model, parameters)
    generator.append_tokens(np.array(IDS[:9], np.int32))
    for _ in range(8):
        generator.generate_next_token()
    assert list(generator.get_sequence(0))[9:] == ours
    assert json.loads((artifact.path / "genai_config.json").read_text())["model"]["decoder"]["filename"]


def test_a_changed_byte_is_found(weights, tmp_path):
    """Rounded scales leave less room than one step of a code."""
    source = weights(int_grid(8, 32), layers=1)
    artifact = made(source, tmp_path / "out")
    stored = {t.name: t for t in onnx.load(artifact.path / "model.onnx", load_external_data=False).graph.initializer}
    at = next(int(e.value) for e in stored["layers.0.down.codes"].external_data if e.key == "offset")
    data = bytearray((artifact.path / "model.onnx.data").read_bytes())
    data[at] ^= 1
    (artifact.path / "model.onnx.data").write_bytes(data)
    assert OnnxExporter().read_back(artifact, source) == ["layers.0.down was read back with other values"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dtype": "bfloat16"}, "dtype 'bfloat16' is not known"),
        ({"dtype": "float16", "kv_dtype": "f32"}, "float16 has no KV cache of f32"),
        ({"dtype": "float16", "kv_dtype": "int8", "dialect": "standard"}, "standard operators have no KV cache"),
    ],
)
def test_what_does_not_go_together_is_refused(weights, tmp_path, options, said):
    with pytest.raises(EdgeqError, match=said):
        OnnxExporter().export(weights(int_grid(4, 32)), tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


def test_rounded_inputs_are_refused(make, tmp_path):
    with pytest.raises(EdgeqError, match="8-bit inputs in float32 graphs only"):
        made(make("dynamic"), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_number_beyond_float16_is_refused_and_nothing_stays(weights, tmp_path):
    source = weights(int_grid(4, 32))
    load = source.load
    source.load = lambda name: load(name) * np.float32(1e6) if name == "final_norm" else load(name)
    with pytest.raises(EdgeqError, match="final_norm has numbers beyond 65,504"):
        made(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
