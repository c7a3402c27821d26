from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from edgeq.cli.main import main

HEAVY = ("torch", "transformers", "openvino", "onnxruntime", "onnx", "numpy", "textual", "huggingface_hub")


def run(capsys, monkeypatch, tmp_path, *arguments, columns="80"):
    monkeypatch.setenv("EDGEQ_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(SystemExit) as stop:
        main(["plan", *arguments])
    out, err = capsys.readouterr()
    return stop.value.code, out, err


@pytest.mark.parametrize(
    ("device", "model", "more"),
    [
        ("rpi-5", "7B", ()),
        ("rtx-4090", "70B", ()),
        ("pixel-9", "qwen3-0.6b", ()),
        ("m4-max", "30B-A3B", ("--context", "32768", "--objective", "quality")),
        ("rtx-3060", "14B", ("--batch", "2", "--kv-dtype", "q8_0")),
        ("core-ultra-7-258v", "8B", ("--target", "openvino/npu", "--target", "openvino/gpu")),
        ("pixel-9", "70B", ()),
    ],
)
def test_the_report_fits_80_columns_and_says_the_main_things(capsys, monkeypatch, tmp_path, device, model, more):
    code, out, err = run(capsys, monkeypatch, tmp_path, "--device", device, "--model", model, *more)
    assert code == 0 and not err
    commands = [line for line in out.splitlines() if line.startswith("  edgeq ")]
    assert all(len(line) <= 80 for line in out.splitlines() if line not in commands)
    assert "…" not in out
    assert "Recommended" in out or "Nothing fits" in out
    if "Recommended" in out:
        assert all(word in out for word in ("weights", "KV cache", "total", "at most", "Candidates", "Next"))


def test_json_is_the_whole_plan(capsys, monkeypatch, tmp_path):
    code, out, _ = run(capsys, monkeypatch, tmp_path, "--device", "m1-pro", "--model", "7B", "--json")
    plan = json.loads(out)
    assert code == 0
    assert plan["recommended"]["target"] == "onnxruntime/cpu"
    assert plan["candidates"][0]["quality"]["source"]
    assert plan["next_commands"][0].startswith("edgeq quantize")


def test_all_shows_every_candidate(capsys, monkeypatch, tmp_path):
    asked = ("--device", "m1-pro", "--model", "1B")
    _, short, _ = run(capsys, monkeypatch, tmp_path, *asked)
    _, long, _ = run(capsys, monkeypatch, tmp_path, *asked, "--all")
    assert "gguf-q3_k_s" not in short and "gguf-q3_k_s" in long


def test_default_context_is_no_more_than_the_models(capsys, monkeypatch, tmp_path):
    _, out, _ = run(capsys, monkeypatch, tmp_path, "--device", "m1-pro", "--model", "llama-2-7b", "--json")
    assert json.loads(out)["request"]["context"] == 4096


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--max-memory", "potato"), "not a size"),
        (("--context", "0"), "context of 0"),
        (("--target", "llamacpp/abacus"), "unknown target"),
        (("--objective", "fun"), "unknown objective"),
        (("--kv-dtype", "float"), "unknown KV cache dtype"),
        (("--min-tps", "-3"), "tokens/s"),
        (("--batch", "0"), "0 sequences"),
        (("--device", "abacus-9000"), "abacus-9000"),
    ],
)
def test_bad_values_give_one_clear_line(capsys, monkeypatch, tmp_path, arguments, said):
    given = ("--model", "7B", "--device", "m1-pro", *arguments)
    code, out, err = run(capsys, monkeypatch, tmp_path, *given)
    assert code == 2 and not out
    assert err.startswith("error: ") and err.count("\n") == 1 and said in err


def test_nothing_heavy_is_imported(tmp_path):
    """The plan stays light: none of the big libraries, for a catalog's device."""
    code = (
        "import sys\n"
        "from edgeq.cli.main import main\n"
        "try:\n    main(['plan', '--model', '7B', '--device', 'rtx-4090'])\n"
        "except SystemExit as stop:\n    assert stop.code == 0\n"
        f"print('LOADED', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    env = {**os.environ, "EDGEQ_HOME": str(tmp_path), "COLUMNS": "80"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert "LOADED []" in done.stdout
