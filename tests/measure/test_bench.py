"""The benchmark's figures hang together, are kept, and are printed beside what was promised. No timing is asserted."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from edgeq.artifact import MANIFEST, Artifact, read_artifact
from edgeq.benchmark import Benchmark, Promise, Samples
from edgeq.checkpoint.store import Checkpoint
from edgeq.cli.bench_ import render
from edgeq.cli.main import main
from edgeq.device import load_ref
from edgeq.device.spec import Cpu, Device, Figure, Memory
from edgeq.errors import EdgeqError
from edgeq.files import write_json
from edgeq.jsonable import from_json, to_json
from edgeq.measure import bench_worker
from edgeq.measure.bench import Workload, bench, doubts, ratio
from edgeq.measure.promise import promise_for, promise_of
from edgeq.scheme import named_scheme
from edgeq.store import Store

WORK = Workload(prompt_tokens=(16, 64, 100_000), tokens=12, context=8, reps=2, threads=1)


@pytest.fixture
def machine() -> Device:
    memory = Memory(16 << 30, 8 << 30, Figure(20e9, "B/s", "measured"))
    return Device("test", "local", "Linux", Cpu("Test processor", "x86_64", 2, 2), memory)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEQ_HOME", str(tmp_path / "home"))


def test_a_benchmark_says_what_the_session_did(artifact: Artifact, machine: Device) -> None:
    seen: list[tuple[int, int, str]] = []
    promise = Promise(decode_tps=100.0, basis="prior")
    found = bench(artifact, machine, workload=WORK, promise=promise, progress=lambda *s: seen.append(s))
    assert [p.tokens for p in found.prefill] == [16, 64]  # the longest is beyond the context
    assert all(len(p.tps.runs) == len(p.ttft_s.runs) == 2 for p in found.prefill)
    assert len(found.decode.tps.runs) == 2 and min(found.decode.tps.runs) > 0
    assert (found.decode.tokens, found.decode.context, found.threads) == (12, 8, 1)
    assert found.target == "onnxruntime/cpu" and found.scheme == "rtn-int4-g32" and found.family == "llama"
    assert 0 < found.baseline_bytes < found.loaded_bytes <= found.peak_bytes < 2 << 30
    assert found.load_s > 0 and found.import_s > 0
    assert 0 <= found.load_before <= 1 and 0 <= found.load_during <= 1
    assert found.artifact_bytes == artifact.total_bytes and found.promise == promise
    assert dict(found.versions).keys() == {"edgeq", "onnxruntime"}
    assert seen[-1][0] == seen[-1][1] == len(seen)
    assert from_json(Benchmark, json.loads(json.dumps(to_json(found)))) == found


def test_the_worker_loads_no_more_than_an_application() -> None:
    heavy = ("torch", "numpy", "psutil", "rich")
    code = f"import sys, edgeq.measure.bench_worker; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_a_damaged_artifact_is_the_workers_one_line(artifact: Artifact, machine: Device) -> None:
    (artifact.path / "model.onnx").write_bytes(b"\x00" * artifact.files["model.onnx"]["bytes"])
    with pytest.raises(EdgeqError, match="onnxruntime cannot load the model"):
        bench(read_artifact(artifact.path), machine, workload=WORK)


@pytest.mark.parametrize("change", [{"tokens": 0}, {"reps": 0}, {"prompt_tokens": (0,)}, {"threads": -1}])
def test_work_that_makes_no_sense_is_refused(artifact: Artifact, machine: Device, change: dict[str, int]) -> None:
    with pytest.raises(EdgeqError, match="is not a number of tokens"):
        bench(artifact, machine, workload=replace(WORK, **change))


def test_prompts_longer_than_the_model_allows_are_refused(artifact: Artifact, machine: Device) -> None:
    with pytest.raises(EdgeqError, match="context of 192 tokens holds none"):
        bench(artifact, machine, workload=replace(WORK, prompt_tokens=(192,)))


class EndsEarly:
    """A session that answers with three tokens, whatever it is asked."""

    class stats:  # noqa: N801
        decode_s, new_tokens, prefill_s, ttft_s = 0.5, 3, 0.1, 0.2

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def reset(self) -> None: ...

    def stream(self, prompt: list[int], **options: object) -> list[str]:
        self.asked.append(prompt)
        return []


def test_an_answer_that_ends_early_is_asked_for_again() -> None:
    session = EndsEarly()
    assert bench_worker.decode(session, 4, 1000, 6, 0) == pytest.approx(0.25)  # 3 answers of 2 tokens after the first
    assert len(session.asked) == 3 and len({tuple(p) for p in session.asked}) == 3
    assert all(0 <= i < 1000 for p in session.asked for i in p)


def test_a_busy_machine_and_a_wide_spread_are_said() -> None:
    assert doubts(0.01, 0.02, Samples((10, 10.5))) == ()
    busy, wide = doubts(0.5, 0.2, Samples((10, 20)))
    assert "50% of the machine before and 20% during" in busy and "33%" in wide


def test_a_promise_is_what_the_plan_estimates_for_these_lengths(checkpoint: object, machine: Device) -> None:
    spec, scheme = checkpoint.spec, named_scheme("rtn-int4-g32")  # type: ignore[attr-defined]
    made = promise_for(machine, spec, scheme, "onnxruntime/cpu", WORK.fitted(192))
    assert made.decode_tps and made.ceiling_tps and made.decode_tps < made.ceiling_tps
    assert made.memory_bytes and made.memory_bytes > 100_000 and made.basis.startswith("prior")
    longer = promise_for(machine, spec, scheme, "onnxruntime/cpu", replace(WORK, context=150).fitted(192))
    assert longer.ceiling_tps and longer.ceiling_tps < made.ceiling_tps
    assert longer.memory_bytes and longer.memory_bytes > made.memory_bytes


def test_the_recorded_promise_wins_then_the_checkpoints_then_none(
    artifact: Artifact, machine: Device, checkpoint: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = Promise(decode_tps=7.0, basis="prior")
    assert promise_of(replace(artifact, plan={"promise": to_json(recorded)}), machine, WORK) == recorded
    assert promise_of(replace(artifact, checkpoint=None), machine, WORK) == Promise()
    assert promise_of(replace(artifact, checkpoint="/no/such/place"), machine, WORK) == Promise()
    monkeypatch.setattr(Checkpoint, "open", lambda path: checkpoint)
    computed = promise_of(replace(artifact, checkpoint="somewhere"), machine, WORK)
    assert computed == promise_for(machine, checkpoint.spec, checkpoint.scheme, "onnxruntime/cpu", WORK.fitted(192))  # type: ignore[attr-defined]
    with pytest.raises(EdgeqError, match="not a valid Promise"):
        promise_of(replace(artifact, plan={"promise": {"decode_tps": "fast"}}), machine, WORK)


def test_the_table_sets_measured_beside_promised(artifact: Artifact, machine: Device) -> None:
    found = bench(artifact, machine, workload=WORK)
    promise = Promise(decode_tps=found.decode.tps.median / 2, memory_bytes=found.peak_bytes, ceiling_tps=1e9, basis="x")
    out = io.StringIO()
    render(replace(found, promise=promise, warnings=("it was [busy]",)), Console(file=out, width=80))
    text = out.getvalue()
    assert all(len(line.rstrip()) <= 80 for line in text.splitlines())
    decode = next(line for line in text.splitlines() if line.startswith("decode 12"))
    assert "2.00" in decode and "0%" in decode
    assert "1.00" in next(line for line in text.splitlines() if line.startswith("peak memory"))
    assert "prefill 16" in text and "first token after 64" in text and "it was [busy]" in text
    assert ratio(1.0, None) is None


def run_cli(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    assert isinstance(stop.value.code, int)
    return stop.value.code


SHORT = ("--prompt-tokens", "8,16", "--tokens", "8", "--reps", "1", "--threads", "1")


def test_the_command_prints_json_and_keeps_it_unless_told_not_to(
    artifact: Artifact, machine: Device, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(load_ref, "load_device", lambda ref: machine)
    assert run_cli("bench", str(artifact.path), *SHORT, "--json") == 0
    found = from_json(Benchmark, json.loads(capsys.readouterr().out))
    assert Store().benchmarks() == [found]
    assert run_cli("bench", str(artifact.path), *SHORT, "--no-store") == 0
    assert "decode 8" in capsys.readouterr().out
    assert len(Store().benchmarks()) == 1


def test_bad_prompt_lengths_are_one_line(artifact: Artifact, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("bench", str(artifact.path), "--prompt-tokens", "8,many") == 2
    assert capsys.readouterr().err.strip() == (
        "error: --prompt-tokens is '8,many'. Use numbers with commas: 32,128,512"
    )


def test_verify_says_when_the_checkpoint_is_gone(artifact: Artifact, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(artifact.path / MANIFEST, replace(artifact, checkpoint="/no/such/place").to_json())
    assert run_cli("verify", str(artifact.path)) == 2
    line = capsys.readouterr().err.strip()
    assert "is gone (/no/such/place). Name it with --checkpoint" in line and "\n" not in line
