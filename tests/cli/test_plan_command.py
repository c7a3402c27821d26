from __future__ import annotations

import dataclasses
import json
import os
import re
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


def flat(text):
    """The report as one line, so that a search does not depend on where lines break."""
    return " ".join(text.split())


def test_the_speed_of_a_batch_adds_up_on_paper(capsys, monkeypatch, tmp_path):
    """In all = sequences x bandwidth / bytes: the three figures printed give the fourth."""
    asked = ("--device", "rtx-4090", "--model", "8B", "--batch", "8", "--target", "llamacpp/cuda")
    _, out, _ = run(capsys, monkeypatch, tmp_path, *asked)
    found = re.search(r"at most (\S+) tok/s in all = 8 x (\S+) GB/s \(spec\) / (\S+) GB read", flat(out))
    assert found is not None
    tps, bandwidth, gigabytes = (float(x.replace(",", "")) for x in found.groups())
    assert tps == pytest.approx(8 * bandwidth / gigabytes, rel=0.02)


def test_a_plan_for_elsewhere_says_where_to_type(capsys, monkeypatch, tmp_path):
    _, phone, _ = run(capsys, monkeypatch, tmp_path, "--device", "pixel-9", "--model", "1B")
    assert "Type these on a PC" in flat(phone) and "edgeq bench" not in phone
    _, board, _ = run(capsys, monkeypatch, tmp_path, "--device", "rpi-5", "--model", "1B")
    assert "on the device itself: Raspberry Pi 5" in flat(board) and "edgeq bench" in board
    assert "the shape of meta-llama/Llama-3.2-1B-Instruct" in flat(board)


def test_a_split_says_what_lies_where(capsys, monkeypatch, tmp_path):
    asked = ("--device", "rtx-4090", "--model", "70B", "--target", "llamacpp/cuda")
    _, out, _ = run(capsys, monkeypatch, tmp_path, *asked)
    found = re.search(r"total (\S+) GB (\S+) GB on the card, (\S+) GB with the processor", flat(out))
    assert found is not None
    total, card, host = map(float, found.groups())
    assert total == pytest.approx(card + host, abs=0.2)
    assert f"the other {found[3]} GB stay with the processor" in flat(out)


def test_unknown_bandwidth_is_said_and_is_no_speed(capsys, monkeypatch, tmp_path):
    profile = tmp_path / "board.json"
    cpu = {"name": "a board", "arch": "aarch64", "cores": 4, "threads": 4}
    memory = {"total_bytes": 8 << 30, "available_bytes": 7 << 30}
    profile.write_text(json.dumps({"name": "board", "origin": "file", "os": "Linux", "cpu": cpu, "memory": memory}))
    code, out, err = run(capsys, monkeypatch, tmp_path, "--device", str(profile), "--model", "1B", "--min-tps", "5")
    assert code == 0 and not err
    assert "read bandwidth unknown" in flat(out) and "How fast it will be is unknown" in flat(out)
    assert "--min-tps is not checked" in flat(out)
    assert not re.search(r"\b0(\.0)? tok/s", out)


def test_a_quantized_file_is_noted(capsys, monkeypatch, tmp_path):
    from edgeq.model.read import read_model

    spec = dataclasses.replace(read_model("1B"), origin="gguf", source_dtype="Q4_1")
    monkeypatch.setattr("edgeq.model.read.read_model", lambda ref: spec)
    _, out, _ = run(capsys, monkeypatch, tmp_path, "--device", "m1-pro", "--model", "a.gguf")
    assert "weights are quantized already (Q4_1)" in flat(out)


def test_json_is_the_whole_plan(capsys, monkeypatch, tmp_path):
    code, out, _ = run(capsys, monkeypatch, tmp_path, "--device", "m1-pro", "--model", "7B", "--json")
    plan = json.loads(out)
    assert code == 0
    assert plan["recommended"]["not_yet"] is None
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
