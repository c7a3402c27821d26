"""The OpenVINO session on a tiny exported model: logits, cache, rewinding, refusals."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeq
from edgeq.artifact import MANIFEST, read_artifact
from edgeq.decoder.torch_model import TorchModel
from edgeq.errors import EdgeqError
from edgeq.measure.verify import verify
from edgeq.registry import exporter, runtime

ov = pytest.importorskip("openvino")
IDS = np.random.default_rng(5).integers(0, 256, 40).tolist()
EXACT: dict[str, Any] = {"kv_dtype": "f32", "dynamic_quantization": 0}
NUMBERS = {"short_factor": [1.0 + 0.02 * i for i in range(8)], "long_factor": [1.5 + i / 2 for i in range(8)]}
LONGROPE = {
    "model_type": "phi3",
    "head_dim": 16,
    "original_max_position_embeddings": 16,
    "rope_parameters": {"rope_type": "longrope", "rope_theta": 10000.0, **NUMBERS},
}


@pytest.fixture(scope="module")
def windowed(random_weights, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """An artifact with a window of 6 tokens, and its weights."""
    weights = random_weights(sliding_window=6)
    return exporter("openvino").export(weights, tmp_path_factory.mktemp("ov") / "out", **EXACT).path, weights


@pytest.fixture(params=[True, False], ids=["paged", "stateful"])
def session(windowed, request):
    with edgeq.load(windowed[0], threads=1, chunk=7, paged=request.param) as opened:
        yield opened


def test_prefill_in_chunks_then_decode_are_the_reference_s_logits(windowed, session) -> None:
    reference = TorchModel(windowed[1]).logits(IDS)
    np.testing.assert_allclose(session.logits(IDS), reference, atol=1e-4)
    engine = session.engine
    engine.rewind(0)
    for at in range(0, 21, 7):
        np.testing.assert_allclose(engine.prefill(IDS[at : at + 7]), reference[at + 6], atol=1e-4)
    for at in range(21, len(IDS)):
        found = engine.decode(IDS[at])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, reference[at], atol=1e-4)
    assert engine.position == len(IDS)


@pytest.mark.parametrize("paged", [True, False], ids=["paged", "stateful"])
@pytest.mark.parametrize("kv_dtype", ["f32", "f16", "u8", "u4"])
def test_a_rewound_cache_is_that_of_its_beginning(random_weights, tmp_path, kv_dtype: str, paged: bool) -> None:
    """The 4-bit one of a stateful model is filled again: setting it crashes OpenVINO 2026.4."""
    artifact = exporter("openvino").export(
        random_weights(), tmp_path / "out", kv_dtype=kv_dtype, dynamic_quantization=0
    )
    tolerance = {"f32": 1e-4, "f16": 2e-2, "u8": 0.6, "u4": 6.0}[kv_dtype]
    with edgeq.load(artifact.path, threads=1, chunk=8, paged=paged) as session:
        engine = session.engine
        whole = session.logits(IDS[:20])
        assert np.ptp(whole) > 10
        engine.prefill(IDS[20:28])
        for position in (20, 11, 0):
            engine.rewind(position)
            assert engine.position == position
            rows = [np.array(engine.decode(i)) for i in IDS[position:20]]
            if rows:
                np.testing.assert_allclose(rows, whole[position:], atol=tolerance)
        with pytest.raises(ValueError, match="cannot rewind to 21"):
            engine.rewind(21)


def test_a_conversation_reuses_the_cache(session) -> None:
    session.chat("Hello", max_tokens=4)
    session.chat("And you?", max_tokens=4)
    assert session.stats.reused_tokens > 10
    again = session.generate("One", max_tokens=6)
    assert session.generate("One", max_tokens=6) == again


def test_logits_of_a_prompt_come_in_several_inferences_where_they_are_many(windowed, session) -> None:
    session.engine._rows = 5
    np.testing.assert_allclose(session.logits(IDS), TorchModel(windowed[1]).logits(IDS), atol=1e-4)
    assert session.engine.position == len(IDS)


def test_blocks_are_paged_unless_the_attention_has_no_such_form(random_weights, tmp_path, windowed) -> None:
    from edgeq.runtimes.openvino.paged import PagedEngine
    from edgeq.runtimes.openvino.stateful import StatefulEngine

    with edgeq.load(windowed[0], threads=1) as session:
        assert isinstance(session.engine, PagedEngine)
    weights = random_weights(model_type="gemma2", attn_logit_softcapping=5.0)
    folder = exporter("openvino").export(weights, tmp_path / "out", **EXACT).path
    with edgeq.load(folder, threads=1) as session:
        assert isinstance(session.engine, StatefulEngine)
        np.testing.assert_allclose(session.logits(IDS), TorchModel(weights).logits(IDS), atol=1e-3)
    with pytest.raises(EdgeqError, match="can't be paged"):
        edgeq.load(folder, paged=True)


@pytest.mark.parametrize("count", [33, 64, 70])
def test_a_sequence_over_several_blocks(random_weights, tmp_path, count: int) -> None:
    weights = random_weights()
    folder = exporter("openvino").export(weights, tmp_path / "out", **EXACT).path
    ids = np.random.default_rng(6).integers(0, 256, count).tolist()
    reference = TorchModel(weights).logits(ids)
    with edgeq.load(folder, threads=1, chunk=50, context=count, paged=True) as session:
        np.testing.assert_allclose(session.logits(ids), reference, atol=1e-4)
        session.engine.rewind(30)
        for at in range(30, count):
            np.testing.assert_allclose(session.engine.decode(ids[at]), reference[at], atol=1e-4)


def test_a_context_beyond_the_longrope_switch_uses_long_factors_from_the_first_token(random_weights, tmp_path) -> None:
    weights = random_weights(**LONGROPE)
    folder = exporter("openvino").export(weights, tmp_path / "out", **EXACT).path
    reference = TorchModel(weights).logits(IDS)  # one pass of 40 tokens: long factors throughout
    with edgeq.load(folder, context=64, chunk=7, threads=1) as session:
        engine = session.engine
        for at in range(0, 21, 7):
            np.testing.assert_allclose(engine.prefill(IDS[at : at + 7]), reference[at + 6], atol=1e-4)
        np.testing.assert_allclose(engine.decode(IDS[21]), reference[21], atol=1e-4)
    with edgeq.load(folder, threads=1) as session:  # by default the context ends where the switch is
        assert session.context == 16
        np.testing.assert_allclose(session.logits(IDS[:16]), TorchModel(weights).logits(IDS[:16]), atol=1e-4)


def test_verification_passes_where_nothing_is_rounded(windowed) -> None:
    found = verify(read_artifact(windowed[0]), checkpoint=windowed[1], tokens=96)
    assert (found.verdict, found.path) == ("pass", "float")
    assert found.random.mean_kl < 1e-8


def test_an_artifact_for_another_device_runs_on_the_processor(random_weights, tmp_path) -> None:
    folder = exporter("openvino").export(random_weights(), tmp_path / "out", device="gpu").path
    if "GPU" not in ov.Core().available_devices:
        with edgeq.load(folder, threads=1) as session:
            assert session.engine.device == "CPU"
        with pytest.raises(EdgeqError, match="finds no gpu here"):
            edgeq.load(folder, device="gpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": 0}, "threads is 0"),
        ({"chunk": -1}, "chunk is -1"),
        ({"context": 5000}, "knows 1024 positions"),
        ({"device": "npu"}, "device is 'npu'"),
        ({"precision": "int8"}, "precision is 'int8'"),
        ({"spin": True}, "no option 'spin'"),
    ],
)
def test_options_out_of_range(windowed, options: dict[str, Any], message: str) -> None:
    with pytest.raises(EdgeqError, match=message):
        edgeq.load(windowed[0], **options)


def test_tokens_that_do_not_fit(windowed) -> None:
    with edgeq.load(windowed[0], context=5, threads=1) as session:
        with pytest.raises(EdgeqError, match="not in the model's vocabulary"):
            session.engine.decode(259)
        session.engine.prefill(IDS[:5])
        with pytest.raises(EdgeqError, match="6 tokens"):
            session.engine.decode(1)


@pytest.mark.parametrize(("name", "content"), [("openvino_model.xml", b"<net>"), ("openvino_model.xml", b"")])
def test_damaged_files(windowed, tmp_path, name: str, content: bytes) -> None:
    copy = Path(shutil.copytree(windowed[0], tmp_path / "copy"))
    (copy / name).write_bytes(content)
    manifest = json.loads((copy / MANIFEST).read_text())
    manifest["files"][name]["bytes"] = len(content)
    (copy / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(EdgeqError, match="OpenVINO cannot read the model"):
        edgeq.load(copy)


def test_a_model_of_another_kind(windowed, tmp_path) -> None:
    from openvino import opset13 as op

    copy = Path(shutil.copytree(windowed[0], tmp_path / "copy"))
    x = op.parameter([1], ov.Type.f32)
    x.output(0).get_tensor().set_names({"x"})
    ov.serialize(ov.Model([op.relu(x)], [x]), copy / "openvino_model.xml")
    with pytest.raises(EdgeqError, match="not a model this runtime knows: its inputs are x"):
        runtime("openvino").open(read_artifact_as_it_is(copy))


def read_artifact_as_it_is(folder: Path) -> Any:
    """The manifest, whatever the files' sizes."""
    manifest = json.loads((folder / MANIFEST).read_text())
    for name, entry in manifest["files"].items():
        entry["bytes"] = (folder / name).stat().st_size
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return read_artifact(folder)


def test_missing_packages(windowed, monkeypatch) -> None:
    monkeypatch.setattr("edgeq.runtimes.openvino.find_spec", lambda name: None if name == "openvino" else object())
    assert runtime("openvino").missing() == "openvino"
    with pytest.raises(EdgeqError, match="needs openvino"):
        edgeq.load(windowed[0])


def test_a_session_loads_no_torch() -> None:
    code = (
        "import sys, edgeq, edgeq.runtimes.openvino; assert 'openvino' not in sys.modules\n"
        "import edgeq.runtimes.session, edgeq.runtimes.openvino.engine\n"
        "heavy = {'torch', 'transformers', 'onnx', 'onnxruntime', 'typer'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
