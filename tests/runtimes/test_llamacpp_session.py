"""The llamacpp session on files that edgeq exported."""

from __future__ import annotations

import gc
import importlib.util
import json
import shutil
import threading

import numpy as np
import pytest

import edgeq
from edgeq.decoder.torch_model import TorchModel
from edgeq.errors import EdgeqError
from edgeq.exporters.gguf.export import export
from edgeq.runtimes.llamacpp import library

pytest.importorskip("xllamacpp")

IDS = np.random.default_rng(5).integers(0, 256, 40).tolist()
ONE = {"threads": 1, "kv_dtype": "f32"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_weights):
    return export(tiny_weights(), tmp_path_factory.mktemp("llamacpp") / "tiny").path


@pytest.fixture
def session(folder):
    with edgeq.load(folder, **ONE) as opened:
        yield opened


def test_auto_takes_this_runtime(folder, session):
    assert type(session.engine).__name__ == "LlamaEngine"
    assert session.engine.threads == session.threads == 1
    assert session.context == 1024


def test_prefill_in_chunks_then_decode_equals_one_pass(folder, session):
    whole = session.logits(IDS)
    assert np.ptp(whole) > 1
    with edgeq.load(folder, chunk=7, **ONE) as other:
        np.testing.assert_allclose(other.logits(IDS), whole, atol=1e-3)
        other.engine.rewind(0)
        for at in range(0, 21, 7):
            np.testing.assert_allclose(other.engine.prefill(IDS[at : at + 7]), whole[at + 6], atol=1e-3)
        for at in range(21, len(IDS)):
            np.testing.assert_allclose(other.engine.decode(IDS[at]), whole[at], atol=1e-3)


def test_logits_of_more_tokens_than_their_memory_holds_are_the_same(folder, monkeypatch):
    monkeypatch.setattr("edgeq.runtimes.llamacpp.engine._LOGITS_BYTES", 4 * 259 * 9)  # rows of 9 tokens
    with edgeq.load(folder, **ONE) as session:
        few = session.logits(IDS)
        assert few.base is None or few.base.base is None  # not llama.cpp's own memory
        after = session.engine.decode(7).copy()
        np.testing.assert_allclose(after, session.logits([*IDS, 7])[-1], atol=1e-3)
    monkeypatch.undo()
    with edgeq.load(folder, **ONE) as session:
        np.testing.assert_allclose(session.logits(IDS), few, atol=1e-3)


def test_rewinding_forgets(session):
    whole = session.logits([*IDS[:10], 7, 8, 9])
    session.logits(IDS)
    session.engine.rewind(10)
    assert session.engine.position == 10
    for i, token in enumerate((7, 8, 9)):
        np.testing.assert_allclose(session.engine.decode(token), whole[10 + i], atol=1e-3)
    with pytest.raises(ValueError, match="cannot rewind"):
        session.engine.rewind(99)


def test_generate_follows_the_argmax(session):
    ids = session.tokenizer.encode("Hello")
    expected: list[int] = []
    for _ in range(12):
        token = int(session.logits(ids + expected)[-1].argmax())
        if token == 257:
            break
        expected.append(token)
    assert len(expected) > 3
    assert session.generate("Hello", max_tokens=12) == session.tokenizer.decode(expected)
    stats = session.stats
    assert stats.prompt_tokens == 5 and stats.new_tokens >= len(expected)
    assert stats.ttft_s > 0 and stats.prefill_tps > 0 and stats.decode_tps > 0


def test_stream_is_generate_in_pieces_and_seeds_repeat(session):
    options = {"max_tokens": 50, "temperature": 1.2, "seed": 3}
    pieces = list(session.stream("Hé", **options))
    assert len(pieces) > 3 and "".join(pieces) == session.generate("Hé", **options)
    assert session.generate("Hé", max_tokens=50, temperature=1.2, seed=4) != "".join(pieces)


def test_a_stop_string_ends_the_answer(session):
    text = session.generate("Hello", max_tokens=40, temperature=1.0, seed=11)
    stop = text[5:8]
    assert session.generate("Hello", max_tokens=40, temperature=1.0, seed=11, stop=stop) == text[: text.index(stop)]
    assert session.stats.finish == "stop"


def test_cancel_from_another_thread_ends_the_answer(session):
    stream = session.stream("Hello", max_tokens=900, temperature=1.0, seed=2)
    next(stream)
    thread = threading.Thread(target=session.cancel)
    thread.start()
    thread.join()
    assert len(list(stream)) <= 1
    assert session.stats.finish == "cancelled"


def test_chat_prefills_only_the_new_turn(session):
    first = session.chat("Hi", max_tokens=8)
    before = len(session.tokenizer.encode_chat([{"role": "user", "content": "Hi"}]))
    session.chat("More", max_tokens=8)
    assert session.stats.reused_tokens >= before - 1
    session.reset()
    assert session.chat("Hi", max_tokens=8) == first


def test_narrower_caches_lose_more(tmp_path, tiny_weights):
    """Heads of 32, which a cache's blocks of 32 fill."""
    made = export(tiny_weights(head_dim=32), tmp_path / "wide").path
    found = {}
    for kv_dtype in ("f32", "f16", "bf16", "q8_0", "q4_0"):
        with edgeq.load(made, threads=1, kv_dtype=kv_dtype) as session:
            found[kv_dtype] = session.logits(IDS)
    error = {k: np.abs(v - found["f32"]).max() / np.abs(found["f32"]).max() for k, v in found.items()}
    assert error["f16"] <= error["bf16"] < error["q8_0"] < error["q4_0"]
    assert error["f16"] < 0.01 and error["q8_0"] < 0.2


def test_an_f32_cache_keeps_more_than_an_f16_one(tmp_path, tiny_weights):
    """Under flash attention llama.cpp casts it to f16, so that it would give the same logits for twice the memory."""
    weights = tiny_weights(head_dim=32)
    made = export(weights, tmp_path / "wide").path
    reference, error = TorchModel(weights).logits(IDS), {}
    for kv_dtype in ("f32", "f16"):
        with edgeq.load(made, threads=1, kv_dtype=kv_dtype) as session:
            error[kv_dtype] = np.abs(session.logits(IDS) - reference).max()
    assert error["f32"] < error["f16"] / 2


def test_a_cache_that_a_head_does_not_fill_is_refused_in_words(folder):
    with pytest.raises(EdgeqError, match="cannot open a context of 1024 tokens with a q8_0 cache"):
        edgeq.load(folder, threads=1, kv_dtype="q8_0")


def test_the_context_ends_the_answer_and_refuses_more(folder):
    with edgeq.load(folder, context=20, **ONE) as session:
        session.generate("a" * 15, max_tokens=50)
        assert session.stats.finish in ("context", "eos")
        with pytest.raises(EdgeqError, match="context holds 20"):
            session.generate("a" * 21)
        with pytest.raises(EdgeqError, match="is not in the model's vocabulary of 259"):
            session.logits([259])
        session.engine.rewind(0)
        session.engine.prefill(IDS[:20])
        with pytest.raises(EdgeqError, match="do not fit into the context of 20"):
            session.engine.decode(1)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"colour": 1}, "no option 'colour'"),
        ({"threads": 0}, "threads is 0"),
        ({"context": 5000}, "a context of 5000 is too long"),
        ({"kv_dtype": "q2_k"}, "no q2_k cache"),
    ],
)
def test_bad_options_are_told(folder, options, line):
    with pytest.raises(EdgeqError, match=line):
        edgeq.load(folder, **options)


def test_damaged_files_are_told_and_harm_nothing(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    file, manifest = copy / "model.gguf", json.loads((copy / "edgeq.json").read_text())
    (copy / "edgeq.json").write_text(json.dumps({**manifest, "files": {}}))
    whole = file.read_bytes()
    for size in (0, 30, 2000, len(whole) // 2, len(whole) - 100):
        file.write_bytes(whole[:size])
        with pytest.raises(EdgeqError, match="cannot load the model: "):
            edgeq.load(copy, **ONE)
    file.unlink()
    with pytest.raises(EdgeqError, match="no GGUF file"):
        edgeq.load(copy, **ONE)
    file.write_bytes(whole)
    with edgeq.load(copy, **ONE) as session:
        assert session.generate("Hello", max_tokens=4)


def test_closed_sessions_say_so(folder):
    session = edgeq.load(folder, **ONE)
    engine = session.engine
    session.close()
    session.close()
    engine.close()
    with pytest.raises(EdgeqError, match="closed"):
        session.generate("Hello")
    with pytest.raises(EdgeqError, match="closed"):
        engine.prefill([1])


def test_a_session_that_nobody_closed_is_freed(folder):
    session = edgeq.load(folder, **ONE)
    free = session.engine._free
    assert free.alive
    del session
    gc.collect()
    assert not free.alive


def test_another_layout_is_refused_before_anything_is_called():
    params = library.library().llama_context_default_params()
    library.check_layout(params, library._CONTEXT, library.Path("here"))
    params.n_ubatch, params.n_seq_max = params.n_seq_max, params.n_ubatch  # a field moved
    with pytest.raises(EdgeqError, match="passes its parameters in another way") as caught:
        library.check_layout(params, library._CONTEXT, library.Path("here"))
    assert "pip install xllamacpp==" in caught.value.hint


def test_without_the_package_its_extra_is_named(folder, monkeypatch):
    monkeypatch.setenv("PATH", "")
    find = importlib.util.find_spec
    monkeypatch.setattr("edgeq.runtimes.llamacpp.find_spec", lambda name: None if name == "xllamacpp" else find(name))
    with pytest.raises(EdgeqError, match="needs xllamacpp") as caught:
        edgeq.load(folder)
    assert "edgeq[llamacpp]" in caught.value.hint


def test_the_session_loads_nothing_heavy(folder):
    import subprocess
    import sys

    program = (
        "import sys, edgeq\n"
        f"edgeq.load({str(folder)!r}, threads=1).close()\n"
        "print(*(m for m in ('torch', 'onnx', 'onnxruntime', 'gguf', 'safetensors', 'xllamacpp') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout.split(), done.stderr) == ([], "")


@pytest.mark.parametrize("layers", [-1, True, "all"])
def test_gpu_layers_must_be_a_number_from_0_on(folder, layers):
    with pytest.raises(EdgeqError, match="gpu_layers is"):
        edgeq.load(folder, gpu_layers=layers, **ONE)


def test_gpu_layers_are_refused_by_a_build_without_a_gpu(folder):
    if library.library().llama_supports_gpu_offload():
        pytest.skip("this llama.cpp has a GPU")
    with pytest.raises(EdgeqError, match="gpu_layers is 2, but this llama"):
        edgeq.load(folder, gpu_layers=2, **ONE)
