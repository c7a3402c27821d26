"""`edgeq inspect`: the facts of a model, for a person and as JSON."""

from __future__ import annotations

import json

import pytest

from edgeq.cli.main import main


def _run(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main(["inspect", *arguments])
    out, err = capsys.readouterr()
    return int(stopped.value.code or 0), out, err


def test_json_has_counts_and_cache(capsys):
    code, out, _ = _run(capsys, "llama-2-7b", "--json", "--context", "4096")
    data = json.loads(out)
    assert code == 0 and data["parameters"]["total"] == 6738415616
    assert sum(data["parameters"]["by_role"].values()) == data["parameters"]["total"]
    assert data["kv_cache"]["bytes_per_token"] == 524288
    assert data["kv_cache"]["bytes"] == 2 << 30  # 2.0 GiB at 4k
    assert len(data["model"]["layers"]) == 32


@pytest.mark.parametrize(
    ("model", "texts"),
    [
        ("qwen3-0.6b", ["596,049,920", "16 heads on 8 KV heads of 128", "QK-norm per head", "114,688 bytes a token"]),
        ("30b-a3b", ["8 of 128 experts", "Used for one token", "3,353,032,704", "98,304 bytes a token"]),
        ("deepseek-v2-lite", ["multi-head latent", "1 × SwiGLU, 10,944", "31,104 bytes a token"]),
        ("gemma-3-12b", ["40 × the last 1,024 tokens", "8 × all tokens", "weights stored minus one"]),
        ("smollm3-3b", ["9 × none (NoPE)"]),
        ("qwen3-next-80b-a3b", ["36 × gated delta", "a sequence, whatever its length"]),
        ("mamba-2.8b", ["Mamba 1, inner width 5,120"]),
    ],
)
def test_the_report_says_what_matters(capsys, monkeypatch, model, texts):
    monkeypatch.setenv("COLUMNS", "120")
    code, out, _ = _run(capsys, model, "--context", "32768")
    assert code == 0
    for text in texts:
        assert text in out
    assert "Source: https://huggingface.co/" in out


def test_every_known_model_renders(capsys):
    from edgeq.model import known_models

    for model in known_models():
        assert _run(capsys, model.name)[0] == 0


def test_an_estimate_is_marked(capsys, tmp_path, monkeypatch):
    from dataclasses import replace

    from edgeq.model import read, read_model

    spec = replace(read_model("0.5B"), estimated=("its headers were guessed",))
    monkeypatch.setattr(read, "read_model", lambda *_, **__: spec)
    assert "estimated: its headers were guessed" in _run(capsys, "x")[1]


def test_no_such_model_is_one_line(capsys):
    code, out, err = _run(capsys, "lama-3.1-8b")
    assert (code, out) == (2, "")
    assert err.startswith("error: no model named 'lama-3.1-8b'. Did you mean llama-3.1-8b")
