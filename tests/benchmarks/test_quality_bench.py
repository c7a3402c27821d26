"""The quality benchmark's own arithmetic: chunks, scoring, a peer's format, verdicts, kept results."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

quality = pytest.importorskip("quality")

from quality_bars import ratio_at_size, verdicts  # noqa: E402
from quality_genai import dequantize, unpack  # noqa: E402
from quality_harness import Cut, compare  # noqa: E402
from quality_peers import own_figures  # noqa: E402
from quality_rows import Row, rows  # noqa: E402
from quality_run import Bench, spend  # noqa: E402


def test_chunks_are_whole_and_consecutive() -> None:
    assert Cut(2, 4).pieces(range(11)) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert Cut(9, 4).pieces(range(11)) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_bos_stands_before_the_text_and_takes_each_chunks_first_place() -> None:
    assert Cut(9, 4, bos=99).pieces(range(8)) == [[99, 0, 1, 2], [99, 4, 5, 6]]


def test_a_text_shorter_than_a_chunk_is_refused() -> None:
    with pytest.raises(ValueError, match="3 tokens"):
        Cut(1, 4).pieces([1, 2, 3])


def test_the_second_half_is_scored_but_for_its_last_position() -> None:
    # llama.cpp: positions 256..510 of 512 predict tokens 257..511.
    positions = range(512)[Cut(1, 512).scored]
    assert (positions[0], positions[-1], len(positions)) == (256, 510, 255)


def test_compare_scores_the_next_token_and_the_divergence() -> None:
    draw = np.random.default_rng(0)
    cut, pieces = Cut(2, 6), [[0, 1, 2, 3, 4, 0], [4, 3, 2, 1, 0, 2]]
    reference = draw.standard_normal((2, 6, 5)).astype(np.float32)
    candidate = reference + draw.standard_normal(reference.shape).astype(np.float32) * 0.1
    rest = iter(candidate)
    got = compare((r[cut.scored] for r in reference), lambda _: next(rest), pieces, cut)

    def log_probs(x: Any) -> Any:
        return x - np.log(np.exp(x.astype(np.float64)).sum(-1, keepdims=True))

    p, q = log_probs(reference)[:, 3:5], log_probs(candidate)[:, 3:5]
    kl = (np.exp(p) * (p - q)).sum(-1)
    assert got["mean_kl"] == pytest.approx(kl.mean(), rel=1e-5)
    assert got["error"] == pytest.approx(np.std(kl.mean(1), ddof=1) / np.sqrt(2), rel=1e-4)
    nll = -np.mean([q[c, i, pieces[c][4 + i]] for c in range(2) for i in range(2)])
    assert got["perplexity"] == pytest.approx(np.exp(nll), rel=1e-5)
    assert got["tokens"] == 4


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("zeros", [False, True])
def test_matmulnbits_means_what_onnxruntime_computes(bits: int, zeros: bool) -> None:
    ort = pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(bits)
    rows_, columns, block = 3, 64, 32
    packed = draw.integers(0, 256, (rows_, 2, block * bits // 8), np.uint8)
    scales = draw.random((rows_ * 2,), np.float32)
    tensors = {"w": packed, "s": scales}
    if zeros:
        tensors["z"] = draw.integers(0, 256, (rows_ * -(-2 * bits // 8),), np.uint8)
    sizes = {"K": columns, "N": rows_, "bits": bits, "block_size": block}
    node = helper.make_node("MatMulNBits", ["a", *tensors], ["y"], domain="com.microsoft", **sizes)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, [columns, columns])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [columns, rows_])],
        [numpy_helper.from_array(t, n) for n, t in tensors.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    try:
        session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    except Exception as error:
        pytest.skip(f"onnxruntime has no such kernel: {error}")
    expected = session.run(None, {"a": np.eye(columns, dtype=np.float32)})[0].T
    np.testing.assert_allclose(dequantize(node, tensors), expected, rtol=1e-5, atol=1e-5)


def test_codes_lie_in_a_byte_lowest_bits_first() -> None:
    assert unpack(np.array([0x21, 0x43], np.uint8), 4, 3).tolist() == [1, 2, 3]
    assert unpack(np.array([0b11_10_01_00], np.uint8), 2, 4).tolist() == [0, 1, 2, 3]


def test_llama_perplexitys_figures_are_read() -> None:
    printed = """Mean PPL(Q)                   :  20.482325 ±   0.951316
Mean PPL(base)                :  19.249781 ±   0.880000
Mean    KLD:   0.053032 ±   0.001274
99.9%   KLD:   0.900000
99.0%   KLD:   0.301141
Same top p: 86.789 ± 0.530 %"""
    figures = {"mean_kl": 0.053032, "p99_kl": 0.301141, "top1": pytest.approx(0.86789), "perplexity": 20.482325}
    assert own_figures(printed) == figures
    with pytest.raises(RuntimeError, match="no KL divergence"):
        own_figures("Final estimate: PPL = 20.5")


def _result(who: str, method: str, kl: float, size: int, **more: Any) -> dict[str, Any]:
    row = {"who": who, "method": method, "label": f"{who} {method}", "mean_kl": kl, "weight_bytes": size}
    return row | {"runs_on": "llama.cpp", "bars": [], "options": {}, "seconds": 2.0, "cpu_seconds": 1.0} | more


def test_a_bar_at_a_peers_size_takes_only_what_fits_and_runs() -> None:
    measured = [
        _result("llama.cpp", "Q4_1", 0.05, 1000),
        _result("edgeq", "too large", 0.001, 1100),
        _result("edgeq", "runs nowhere", 0.002, 1000, runs_on=""),
        _result("edgeq", "fits", 0.02, 1001),
    ]
    verdict = next(v for v in verdicts(measured) if "Q4_1" in v.bar)
    assert verdict.limit == pytest.approx(0.025)
    assert verdict.ours == 0.02 and verdict.reached and "fits" in verdict.by
    assert str(verdict).startswith("REACHED")


def test_a_bar_without_a_row_is_open() -> None:
    verdict = next(v for v in verdicts([_result("llama.cpp", "Q4_1", 0.05, 1000)]) if "Q4_1" in v.bar)
    assert not verdict.reached and str(verdict).startswith("OPEN")


def test_a_reference_is_held_against_the_same_method_and_group() -> None:
    peer = _result("llm-compressor", "gptq int4 g32", 0.05, 9, options={"group_size": 32})
    ours = [
        _result("edgeq", "gptq", 0.04, 9, bars=["gptq-g32"]),
        _result("edgeq", "other group", 0.01, 9, bars=["gptq-g64"]),
    ]
    verdict = next(v for v in verdicts([peer, *ours]) if "llm-compressor" in v.bar)
    assert verdict.ours == 0.04 and verdict.seconds == (1.0, 1.0)


def test_the_ratio_is_to_the_best_peer_that_is_no_larger() -> None:
    peers = [_result("llama.cpp", "Q4_1", 0.05, 1000), _result("llama.cpp", "IQ4_XS", 0.1, 900)]
    assert ratio_at_size(_result("edgeq", "x", 0.05, 950), peers) == (0.5, "IQ4_XS")
    assert ratio_at_size(_result("edgeq", "x", 0.05, 800), peers) is None


TINY = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "vocab_size": 512,
    "tie_word_embeddings": True,
}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    for name in ("text", "calib"):
        (tmp_path / name).write_text(name)
    (tmp_path / "results").mkdir()
    return Bench(tmp_path, tmp_path / "text", tmp_path / "calib", tmp_path, {})


def test_rows_have_names_of_their_own_and_patterns_pick_them(bench: Bench) -> None:
    every = rows(bench)
    assert len({row.label for row in every}) == len(every)
    row = Row("edgeq", "gptq int4 g32")
    assert row.matches("") and row.matches("g32") and row.matches("llama,gptq") and row.matches("edgeq*g32")
    assert not row.matches("g64") and not row.matches("gptq*")


def test_a_missing_peer_is_a_row_that_says_so_and_is_not_kept(bench: Bench) -> None:
    row = next(r for r in rows(bench) if r.who == "llama.cpp")
    result = quality.kept_or_measured(row, bench, fresh=False)
    assert result is not None and result["missing"] == "RuntimeError: no --llamacpp given"
    assert not quality.result_file(row, bench).exists()


def test_a_kept_result_is_of_the_same_options_and_texts(bench: Bench) -> None:
    row = Row("edgeq", "x", {"bits": 4})
    quality.result_file(row, bench).write_text('{"mean_kl": 0.5}')
    kept = quality.kept_or_measured(row, bench, fresh=False)
    assert kept is not None and kept["mean_kl"] == 0.5 and kept["label"] == "edgeq x"
    assert quality.kept_or_measured(Row("edgeq", "x", {"bits": 3}), bench, fresh=False, cached=True) is None
    bench.text.write_text("another")
    assert quality.kept_or_measured(row, bench, fresh=False, cached=True) is None


def test_a_failed_command_is_quoted() -> None:
    with pytest.raises(RuntimeError, match="ended with 1: ValueError: no luck"):
        spend([sys.executable, "-c", "raise ValueError('no luck')"], 1)


def test_a_command_is_timed_and_its_memory_seen() -> None:
    spent = spend([sys.executable, "-c", "x = bytearray(200 << 20); print('noise'); print('{\"a\": 1}')"], 1)
    assert spent.answer == {"a": 1}
    assert spent.seconds > 0 and spent.cpu_seconds > 0 and spent.peak_bytes > 200 << 20
