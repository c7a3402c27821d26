"""The onnxruntime session on a real exported graph."""

from __future__ import annotations

import numpy as np
import pytest

import edgeq
from edgeq.errors import EdgeqError

IDS = np.random.default_rng(5).integers(0, 256, 40).tolist()
ONE = {"threads": 1, "spin": False}


def plain_logits(folder, ids):
    """All tokens in one run that shares no buffer: the simplest use of the graph, as the reference."""
    import onnxruntime as ort

    session = ort.InferenceSession(str(folder / "model.onnx"))
    feeds = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), np.int64)}
    for node in session.get_inputs():
        if node.name.startswith("past"):
            feeds[node.name] = np.zeros((1, node.shape[1], 0, node.shape[3]), np.float32)
    return session.run(["logits"], feeds)[0][0]


@pytest.fixture(params=["artifact", "windowed", "without_logits_from"])
def folder(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def session(artifact):
    with edgeq.load(artifact, **ONE) as opened:
        yield opened


def test_logits_equal_one_plain_run(folder):
    reference = plain_logits(folder, IDS)
    assert np.ptp(reference) > 1
    with edgeq.load(folder, **ONE) as session:
        found = session.logits(IDS)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, reference, atol=1e-4)


def test_prefill_in_chunks_then_decode_equals_one_plain_run(folder):
    reference = plain_logits(folder, IDS)
    with edgeq.load(folder, chunk=7, **ONE) as session:
        engine = session.engine
        for at in range(0, 21, 7):
            np.testing.assert_allclose(engine.prefill(IDS[at : at + 7]), reference[at + 6], atol=1e-4)
        for at in range(21, len(IDS)):
            np.testing.assert_allclose(engine.decode(IDS[at]), reference[at], atol=1e-4)
        np.testing.assert_allclose(session.logits(IDS), reference, atol=1e-4)


def test_a_context_beyond_the_longrope_switch_uses_long_factors_from_the_first_token(longrope):
    reference = plain_logits(longrope, IDS)  # one run of 40 tokens: long factors throughout
    with edgeq.load(longrope, context=64, chunk=7, **ONE) as session:
        engine = session.engine
        for at in range(0, 21, 7):
            np.testing.assert_allclose(engine.prefill(IDS[at : at + 7]), reference[at + 6], atol=1e-4)
        for at in range(21, len(IDS)):
            np.testing.assert_allclose(engine.decode(IDS[at]), reference[at], atol=1e-4)
    with edgeq.load(longrope, **ONE) as session:  # by default the context ends where the switch is
        assert session.context == 16
        np.testing.assert_allclose(session.logits(IDS[:16]), plain_logits(longrope, IDS[:16]), atol=1e-4)
        assert np.abs(session.logits(IDS[:16])[-1] - reference[15]).max() > 0.01


def test_cache_grows_without_losing_what_it_holds(windowed, artifact):
    ids = np.random.default_rng(6).integers(0, 256, 600).tolist()
    for folder in (windowed, artifact):
        reference = plain_logits(folder, ids)
        with edgeq.load(folder, **ONE) as session:
            small = session.engine.cache_bytes
            session.engine.prefill(ids[:100])
            rows = [session.engine.decode(i).copy() for i in ids[100:]]
            np.testing.assert_allclose(rows, reference[100:], atol=2e-4)
            assert session.engine.cache_bytes == 4 * small  # 256 -> 512 -> 1024


def test_rewinding_forgets(session):
    whole = session.logits([*IDS[:10], 7, 8, 9])
    session.logits(IDS)
    session.engine.rewind(10)
    assert session.engine.position == 10
    for i, token in enumerate((7, 8, 9)):
        np.testing.assert_allclose(session.engine.decode(token), whole[10 + i], atol=1e-4)
    with pytest.raises(ValueError, match="cannot rewind"):
        session.engine.rewind(99)


def test_generate_follows_the_argmax_of_plain_runs(artifact, session):
    ids = session.tokenizer.encode("Hello")
    expected = []
    for _ in range(12):
        token = int(plain_logits(artifact, ids + expected)[-1].argmax())
        if token == 257:
            break
        expected.append(token)
    assert len(expected) > 3
    text = session.generate("Hello", max_tokens=12)
    assert text == session.tokenizer.decode(expected)
    assert session.stats.prompt_tokens == 5
    assert session.generate(ids, max_tokens=12) == text


def test_stream_is_generate_in_pieces(session):
    options = {"max_tokens": 50, "temperature": 1.2, "seed": 3}
    pieces = list(session.stream("Hé", **options))
    assert len(pieces) > 3
    assert all(pieces)
    assert "".join(pieces) == session.generate("Hé", **options)


def test_seeds(session):
    texts = {seed: session.generate("a", max_tokens=30, temperature=1.5, seed=seed) for seed in (1, 2)}
    assert texts[1] != texts[2]
    assert session.generate("a", max_tokens=30, temperature=1.5, seed=1) == texts[1]


def test_reused_prefix_is_not_computed_again_and_changes_nothing(session):
    fresh = session.generate("one two three", max_tokens=20)
    assert session.stats.reused_tokens == 0
    session.generate("one two four", max_tokens=20)
    assert session.generate("one two three", max_tokens=20, reuse=True) == fresh
    assert session.stats.reused_tokens == len("one two ")
    session.engine.rewind(3)  # behind the session's back
    assert session.generate("one two three", max_tokens=20, reuse=True) == fresh


def test_chat_prefills_only_the_new_turn(session):
    first = session.chat("Hi", max_tokens=8)
    assert session.messages[-1] == {"role": "assistant", "content": first}
    before = len(session.tokenizer.encode_chat([{"role": "user", "content": "Hi"}]))
    session.chat("More", max_tokens=8)
    assert session.stats.reused_tokens >= before - 1
    assert [m["role"] for m in session.messages] == ["user", "assistant", "user", "assistant"]
    session.chat([{"role": "user", "content": "New"}], max_tokens=4)
    assert len(session.messages) == 2
    session.reset()
    assert session.messages == []
    assert session.chat("Hi", max_tokens=8) == first


def test_chat_leaves_out_the_oldest_turns_when_the_context_is_full(artifact):
    with edgeq.load(artifact, context=120, **ONE) as session:
        talk = [{"role": "system", "content": "S"}]
        for n in range(5):
            talk += [{"role": "user", "content": f"question {n}"}, {"role": "assistant", "content": "a" * 20}]
        session.chat([*talk, {"role": "user", "content": "last"}], max_tokens=5)
        assert session.stats.prompt_tokens <= 115
        assert session.stats.finish in ("length", "eos")
        kept = session.tokenizer.decode(session._cached)
        assert "system:S" in kept and "last" in kept and "question 0" not in kept
        with pytest.raises(EdgeqError, match="context holds 120"):
            session.chat("x" * 200)


def test_chat_option_is_one_templated_turn(session):
    ids = session.tokenizer.encode_chat([{"role": "system", "content": "S"}, {"role": "user", "content": "Hi"}])
    assert session.generate("Hi", chat=True, system="S", max_tokens=9) == session.generate(ids, max_tokens=9)
    assert session.messages == []
    with pytest.raises(EdgeqError, match="not token ids"):
        session.generate(ids, chat=True)


def test_stop_string_over_several_tokens(session):
    text = session.generate("Hello", max_tokens=40, temperature=1.0, seed=11)
    stop = text[5:8]
    cut = session.generate("Hello", max_tokens=40, temperature=1.0, seed=11, stop=[stop, "never seen in there"])
    assert cut == text[: text.index(stop)]
    assert session.stats.finish == "stop"


def test_cancel_ends_a_stream(session):
    stream = session.stream("Hello", max_tokens=200, temperature=1.0, seed=1)
    got = [next(stream) for _ in range(3)]
    session.cancel()
    rest = list(stream)
    assert session.stats.finish == "cancelled"
    assert len(got) + len(rest) < 10
    assert session.generate("Hello", max_tokens=5)  # and the next one is not cancelled


@pytest.mark.parametrize("step", [1, 2, 5])
def test_an_interrupt_leaves_nothing_behind(session, monkeypatch, step):
    expected = session.generate("Hello", max_tokens=10)
    engine, steps = session.engine, iter(range(1, 100))
    real = engine._run

    def interrupted(binding):
        if next(steps) == step:
            raise KeyboardInterrupt
        real(binding)

    monkeypatch.setattr(engine, "_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        session.generate("Somewhat longer", max_tokens=10)
    assert session.generate("Hello", max_tokens=10) == expected
    assert session.generate("Hello", max_tokens=10, reuse=True) == expected


def test_a_later_call_ends_an_open_stream(session):
    stream = session.stream("Hello", max_tokens=200, temperature=1.0, seed=1)
    next(stream)
    expected = session.generate("World", max_tokens=20)
    assert len(list(stream)) <= 1  # at most the beginning of a character that was held back
    assert session.generate("World", max_tokens=20) == expected


def test_answer_ends_where_the_context_does(artifact):
    with edgeq.load(artifact, context=20, **ONE) as session:
        for seed in range(9):
            session.generate("0123456789", max_tokens=None, temperature=1.0, seed=seed)
            if session.stats.finish == "context":
                break
        assert session.stats.prompt_tokens + session.stats.new_tokens == 21  # the last one need not be fed
        with pytest.raises(EdgeqError, match="the prompt has 21 tokens, the context holds 20"):
            session.generate("x" * 21)
        with pytest.raises(EdgeqError, match="the context holds 20"):
            session.logits([1] * 21)


def test_statistics(session):
    session.generate("Hello", max_tokens=6, temperature=1.0, seed=1)
    stats = session.stats
    assert stats.new_tokens == 6 and stats.finish == "length"
    assert 0 < stats.prefill_s <= stats.ttft_s
    assert stats.decode_tps == pytest.approx(5 / stats.decode_s)
    assert stats.prefill_tps == pytest.approx(5 / stats.prefill_s)


def test_a_closed_session_says_so(artifact):
    session = edgeq.load(artifact, **ONE)
    stream = session.stream("Hello", max_tokens=50)
    session.close()
    session.close()
    assert list(stream) == []
    with pytest.raises(EdgeqError, match="closed"):
        session.generate("Hello")


@pytest.mark.parametrize("ids", [[259], [-1], [3, 1 << 40]])
def test_ids_outside_the_vocabulary(session, ids):
    with pytest.raises(EdgeqError, match="not in the model's vocabulary of 259"):
        session.logits(ids)
    with pytest.raises(EdgeqError, match="the prompt is empty"):
        session.generate("")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"stop": [""]}, "stop string is empty"),
        ({"temperatur": 1}, "unknown generation option 'temperatur'"),
    ],
)
def test_options_out_of_range(session, options, message):
    with pytest.raises(EdgeqError, match=message):
        session.stream("Hello", **options)


def test_import_loads_nothing_and_a_session_no_torch():
    import subprocess
    import sys

    code = (
        "import sys, edgeq; assert 'numpy' not in sys.modules\n"
        "import edgeq.runtimes.session, edgeq.runtimes.onnxruntime.engine, edgeq.runtimes.chat_template, edgeq.api\n"
        "heavy = {'torch', 'transformers', 'onnx', 'openvino', 'typer'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("arch", "isa", "wanted"),
    [
        ("x86_64", ("avx2", "fma"), True),
        ("x86_64", ("avx2", "avx512f"), True),
        ("x86_64", ("avx2", "avx_vnni"), False),
        ("x86_64", ("avx512f", "avx512_vnni"), False),
        ("aarch64", ("neon", "dotprod"), False),
    ],
)
def test_int8_weights_become_uint8_where_their_sums_would_overflow(arch, isa, wanted):
    from edgeq.device.spec import Cpu
    from edgeq.runtimes.onnxruntime.engine import _session_options

    cpu = Cpu("a processor", arch, 2, 4, isa)
    options = _session_options(cpu, 1, True, rounded=True)
    with pytest.raises(RuntimeError, match="x64quantprecision"):  # where no product has 8-bit inputs
        _session_options(cpu, 1, True).get_session_config_entry("session.x64quantprecision")
    if wanted:
        assert options.get_session_config_entry("session.x64quantprecision") == "1"
    else:
        with pytest.raises(RuntimeError, match="x64quantprecision"):
            options.get_session_config_entry("session.x64quantprecision")
