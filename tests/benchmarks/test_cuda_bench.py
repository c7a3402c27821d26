"""The script for a machine with an NVIDIA GPU, as far as one without can say: its rows on the processor, its words."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeq.device.spec import Accelerator, Figure
from edgeq.errors import EdgeqError
from edgeq.model.weights import open_source
from edgeq.quantize.engine import quantize
from edgeq.recipe import Recipe

cuda = pytest.importorskip("cuda")
saved = runpy.run_path(str(Path(__file__).parents[1] / "exporters" / "gguf" / "conftest.py"))["saved"]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def call(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["cuda.py", *arguments])
        return int(cuda.main())

    return call


def test_without_a_gpu_it_says_so_and_runs_nothing(run, monkeypatch, capsys) -> None:
    monkeypatch.setattr("edgeq.device.nvidia.probe_nvidia", lambda: ())
    assert run("no-such-checkpoint") == cuda.NOTHING_RUN == 2
    assert capsys.readouterr().out.startswith("No NVIDIA GPU here")


def test_the_rows_compute_what_the_checkpoint_says(run, saved, tmp_path: Path, capsys) -> None:
    folder = saved("llama", num_hidden_layers=1)
    quantize(open_source(folder), Recipe(str(folder), symmetric=True, embed_symmetric=True), tmp_path / "q")
    table = tmp_path / "rows.json"
    assert run(str(tmp_path / "q"), "--on", "cpu", "--prompt", "8", "--tokens", "2", "--json", str(table)) == 0
    rows = {row["name"]: row for row in json.loads(table.read_text())}
    assert {"torch f32", "torch bf16", "torch f16", "onnxruntime float16", "llama.cpp"} == set(rows)
    assert all(row["mean_kl"] <= row["limit"] for row in rows.values() if not row["missing"])
    assert not rows["torch f32"]["missing"] and rows["torch f32"]["same_answer"] == cuda.ANSWER
    said = capsys.readouterr().out
    assert all(name in said for name in rows)


@pytest.mark.parametrize(
    ("outcome", "code", "said"),
    [
        (EdgeqError("torch finds no NVIDIA GPU here"), 0, "not run: torch finds no NVIDIA GPU here"),
        (RuntimeError("CUDA error: no kernel image\nmore"), 1, "FAILED: RuntimeError: CUDA error: no kernel image"),
        (None, 1, "WRONG"),
    ],
)
def test_one_row_does_not_hide_the_others(run, monkeypatch, capsys, outcome, code: int, said: str) -> None:
    card = Accelerator("cuda", "A Card", 8 << 30, 7 << 30, Figure(5e11, "bytes/s", "spec"), driver="1.2")
    monkeypatch.setattr("edgeq.device.nvidia.probe_nvidia", lambda: (card,))
    monkeypatch.setattr(cuda, "copy_bandwidth", lambda: 4.5e11)
    monkeypatch.setattr(cuda, "Reference", lambda *given: None)
    weights = type("Weights", (), {"spec": type("Spec", (), {"n_layers": 2})()})()
    monkeypatch.setattr("edgeq.checkpoint.open.open_weights", lambda name: weights)

    def opened(row, *given) -> Any:
        if row.name == "torch bf16" and isinstance(outcome, EdgeqError):
            raise outcome
        return type("Session", (), {"close": lambda self: None})()

    def measure(row, *given) -> None:
        row.mean_kl, row.decode_tps, row.prefill_tps = 1e-6, [10.0, 11.0], 100.0
        if row.name == "torch bf16":
            if outcome is not None:
                raise outcome
            row.mean_kl = 1.0

    monkeypatch.setattr(cuda, "opened", opened)
    monkeypatch.setattr(cuda, "measure", measure)
    assert run("checkpoint") == code
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "A Card, 8.0 GiB, 7.0 free, driver 1.2"
    assert any("4.5e+11" in line for line in lines) and any("read_bandwidth: 5e+11" in line for line in lines)
    assert said in next(line for line in lines if line.startswith("torch bf16"))
    assert sum("1e-06" in line for line in lines) >= 4


def test_where_nothing_can_be_opened_the_code_says_so(run, monkeypatch) -> None:
    def opened(*given) -> Any:
        raise EdgeqError("needs something")

    monkeypatch.setattr(cuda, "Reference", lambda *given: None)
    monkeypatch.setattr(cuda, "opened", opened)
    weights = type("Weights", (), {"spec": type("Spec", (), {"n_layers": 2})()})()
    monkeypatch.setattr("edgeq.checkpoint.open.open_weights", lambda name: weights)
    assert run("checkpoint", "--on", "cpu") == cuda.NOTHING_RUN
