"""The benchmark's figures hang together, are kept, and are printed beside what was promised. No timing is asserted."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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
from edgeq.measure.compare import Comparison
from edgeq.measure.live import now_of
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


class Writes:
    """A session that makes a token each so many seconds of a clock that the test turns."""

    def __init__(self, clock: list[float], token_s: float) -> None:
        self.clock, self.token_s, self.stats = clock, token_s, SimpleNamespace()

    def reset(self) -> None: ...

    def close(self) -> None: ...

    def stream(self, prompt: list[int], *, max_tokens: int, **options: object) -> Iterator[str]:
        self.stats = SimpleNamespace(new_tokens=0, decode_s=0.0, prefill_s=0.1, ttft_s=0.1)
        self.clock[0] += 0.1
        for token in range(max_tokens):
            self.clock[0] += self.token_s if token else 0.0
            self.stats.new_tokens, self.stats.decode_s = token + 1, token * self.token_s
            yield "x"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(bench_worker.time, "perf_counter", lambda: now[0])
    return now


def test_the_speed_is_told_while_it_decodes_five_times_a_second_at_most(clock: list[float]) -> None:
    told: list[tuple[float, float]] = []
    seconds = bench_worker.decode(Writes(clock, 0.04), 4, 100, 50, 1, lambda speed: told.append((clock[0], speed)))
    assert seconds == pytest.approx(0.04)
    assert all(speed == pytest.approx(25) for _, speed in told)
    gaps = [after - before for (before, _), (after, _) in pairwise(told)]
    assert 8 <= len(told) <= 10 and min(gaps) >= bench_worker.REPORT_S - 1e-9
    told.clear()
    bench_worker.decode(Writes(clock, 0.001), 4, 100, 50, 1, lambda speed: told.append((clock[0], speed)))
    assert told == [], "what is over at once is told when it is over"


def test_each_event_says_what_it_is_and_how_long_is_left(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    request = {"prompt_tokens": [8, 16], "tokens": 20, "context": 4, "reps": 2}
    bench_worker.run(Writes(clock, 0.1), 100, request)
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    whole = [e for e in events if e["whole"]]
    assert [e["done"] for e in whole] == list(range(1, 10)) and {e["total"] for e in events} == {9}
    assert [e["rep"] for e in whole] == [0, 0, 0, 1, 1, 1, 2, 2, 2] and {e["reps"] for e in events} == {2}
    assert [(e["phase"], e["tokens"]) for e in whole[:3]] == [("prefill", 8), ("prefill", 16), ("decode", 20)]
    assert whole[2]["tokens_per_s"] == 10 and whole[0]["tokens_per_s"] == 80
    assert any(not e["whole"] and e["tokens_per_s"] == 10 for e in events)
    assert "left_s" not in events[0] and "left_s" in whole[2] and whole[-1]["left_s"] == 0
    left = [e["left_s"] for e in events if "left_s" in e and e["rep"]]
    assert left == sorted(left, reverse=True)
    assert whole[5]["left_s"] == pytest.approx(0.1 + 0.1 + 2.1)  # two prompts, 20 tokens after a prompt


def test_the_application_is_told_the_speed_and_what_came_out_so_far(artifact: Artifact, machine: Device) -> None:
    told: list[dict[str, Any]] = []
    found = bench(artifact, machine, workload=WORK, live=lambda done, total, what, **more: told.append(more))
    now = now_of(told[-1])
    assert now is not None and (now.artifact, now.phase, now.rep, now.reps) == (0, "decode", 2, 2)
    assert now.tokens_per_s == now.decode_tps and now.tokens_per_s > 0
    figures = {(s.phase, s.tokens): s.tokens_per_s for s in now.so_far}
    assert figures["decode", 12] == pytest.approx(found.decode.tps.median, rel=0.01)
    assert figures["prefill", 64] == pytest.approx(found.prefill[1].tps.median, rel=0.01)
    assert now_of({}) is None and now_of({"artifact": "x"}) is None


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


def test_several_are_compared_and_kept_and_a_bad_one_is_refused_first(
    artifact: Artifact, machine: Device, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(load_ref, "load_device", lambda ref: machine)
    path = str(artifact.path)
    assert run_cli("bench", path, path, *SHORT, "--json") == 0
    found = from_json(Comparison, json.loads(capsys.readouterr().out))
    assert Store().benchmarks() == [side.benchmark for side in found.sides]
    assert run_cli("bench", path, "--compare", path, *SHORT, "--no-store") == 0
    out = capsys.readouterr().out
    assert "decode 8, tok/s" in out and "×" in out
    assert all(len(line.rstrip()) <= 80 for line in out.splitlines() if "onnxruntime/cpu" not in line)
    assert len(Store().benchmarks()) == 2
    monkeypatch.setattr("edgeq.measure.compare.in_turns", lambda *_, **__: pytest.fail("measured"))
    assert run_cli("bench", path, "--compare", "nowhere", *SHORT) == 2
    assert capsys.readouterr().err.startswith("error: no such artifact folder (nowhere)")
    assert run_cli("bench", path, path, "--threads", "auto") == 2
    assert "--threads auto takes one artifact" in capsys.readouterr().err


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
