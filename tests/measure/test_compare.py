"""Artifacts are measured in turns and set beside the first; a bad one is refused before anything is measured."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from edgeq.artifact import Artifact, read_artifact
from edgeq.benchmark import Benchmark, Decode, Prefill, Promise, Samples
from edgeq.cli import compare_report
from edgeq.device.spec import Cpu, Device, Figure, Memory
from edgeq.errors import EdgeqError
from edgeq.jsonable import from_json, to_json
from edgeq.measure import bench as bench_module
from edgeq.measure.bench import Workload
from edgeq.measure.bench_words import advice, ago, ceiling_line, verdict, versus, work_rows
from edgeq.measure.compare import Comparison, beside, compare, rounds_of, short_names, unable
from edgeq.measure.known import expected_seconds, latest
from edgeq.measure.likeness import Likeness, likeness
from edgeq.measure.process import run_worker
from edgeq.store import Store

WORK = Workload(prompt_tokens=(8, 16), tokens=8, context=4, reps=3, threads=1)


@pytest.fixture
def machine() -> Device:
    memory = Memory(16 << 30, 8 << 30, Figure(20e9, "B/s", "measured"))
    return Device("test", "local", "Linux", Cpu("Test processor", "x86_64", 2, 2), memory)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEQ_HOME", str(tmp_path / "home"))


@pytest.fixture
def two(artifact: Artifact, tmp_path: Path) -> list[Artifact]:
    shutil.copytree(artifact.path, tmp_path / "artifact-b")
    return [artifact, read_artifact(tmp_path / "artifact-b")]


def figures(name: str, speeds: tuple[float, ...], **changes: Any) -> Benchmark:
    """A benchmark with these decode speeds, and prefill ten times as fast."""
    prefill = Prefill(128, Samples.of(10 * s for s in speeds), Samples.of(1.28 / s for s in speeds))
    made = Benchmark(
        "2026-11-24T10:00:00+00:00", "Test / 2 threads / 16 GiB", "onnxruntime/cpu", "tiny", "llama", "rtn-int4-g32",
        f"/models/tiny-{name}", 100_000_000, 2, 0.4, 0.1, (prefill,), Decode(128, 32, Samples.of(speeds)),
        10_000_000, 100_000_000, 200_000_000, 0.0, 0.0,
    )  # fmt: skip
    return replace(made, **changes)


def test_each_has_its_turn_in_every_round_in_a_process_of_its_own(
    two: list[Artifact], machine: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    def noted(module: str, request: Any, on_event: Any) -> Any:
        order.append(f"{Path(request['path']).name} {request['reps']}")
        return run_worker(module, request, on_event)

    monkeypatch.setattr(bench_module, "run_worker", noted)
    steps: list[tuple[int, int, str]] = []
    told: list[dict[str, Any]] = []
    found = compare(
        two,
        machine,
        workload=replace(WORK, reps=4),
        progress=lambda *s: steps.append(s),
        live=lambda done, total, what, **more: told.append({"done": done, "total": total, "what": what, **more}),
    )
    assert order == ["artifact 2", "artifact-b 2", "artifact 1", "artifact-b 1", "artifact 1", "artifact-b 1"]
    assert found.rounds == (2, 1, 1)
    for side in found.sides:
        assert len(side.benchmark.decode.tps.runs) == 4
        assert [len(p.tps.runs) for p in side.benchmark.prefill] == [4, 4]
        assert side.decode.low <= side.decode.value <= side.decode.high
    assert found.sides[0].decode.value == found.sides[0].decode.low == found.sides[0].decode.high == 1
    assert not found.sides[0].decode.clear
    assert [s[0] for s in steps] == list(range(1, len(steps) + 1)) and steps[-1][0] == steps[-1][1]
    assert steps[0][2].startswith("onnxruntime: prefill 8") and steps[-1][2].startswith("b: decode 8")
    assert {t["artifact"] for t in told} == {0, 1} and {t["name"] for t in told} == {"onnxruntime", "b"}
    assert len(told[-1]["so_far"]) == 6 and all(s["reps"] == 4 for s in told[-1]["so_far"])
    assert told[-1]["left_s"] == 0 and all(t.get("left_s", 0) >= 0 for t in told)
    assert from_json(Comparison, json.loads(json.dumps(to_json(found)))) == found


def test_a_bad_one_is_refused_before_anything_is_measured(
    two: list[Artifact], machine: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_module, "run_worker", lambda *_: pytest.fail("measured"))
    with pytest.raises(EdgeqError, match="no runtime of-another-planet"):
        compare([two[0], replace(two[1], runtime="of-another-planet")], machine, workload=WORK)
    with pytest.raises(EdgeqError, match="holds none of these prompts"):
        compare([two[0], replace(two[1], model=two[1].model | {"max_positions": 4})], machine, workload=WORK)
    with pytest.raises(EdgeqError, match="two artifacts or more"):
        compare(two[:1], machine, workload=WORK)


def test_a_missing_runtime_is_said_with_what_installs_it(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    assert unable(artifact) is None

    class Absent:
        def missing(self) -> str:
            return "onnxruntime, tokenizers"

    monkeypatch.setattr("edgeq.measure.compare.runtime", lambda _: Absent())
    why = unable(artifact)
    assert why is not None and "onnxruntime needs onnxruntime, tokenizers" in why.what
    assert why.hint == "pip install onnxruntime tokenizers"


def test_rounds_share_the_repetitions() -> None:
    assert [rounds_of(n) for n in (1, 2, 5, 7)] == [(1,), (1, 1), (2, 2, 1), (3, 2, 2)]


def test_ratios_are_of_the_rounds() -> None:
    # The machine slows down by half after the first round; the ratio does not care.
    a, b = figures("onnx", (40, 40, 20)), figures("openvino", (60, 60, 29))
    found = beside([a, b], [None, None], (2, 1))
    assert found.sides[1].decode.low == pytest.approx(1.45)
    assert found.sides[1].decode.high == pytest.approx(1.5)
    assert found.sides[1].decode.clear and found.fastest is found.sides[1]
    assert found.sides[1].prefill[0] is not None and found.sides[1].prefill[0].clear
    names = compare_report.names(found)
    assert names == ["onnx", "openvino"]
    assert versus(found, names) == "openvino writes fastest: 1.48 times onnx's speed."
    apart = beside([a, b], [None, None])
    assert not apart.sides[1].decode.clear  # apart, the slow repetitions may have had other reasons
    assert "seems faster" in versus(apart, names)
    same = beside([a, figures("openvino", (41, 39, 20))], [None, None], (1, 1, 1))
    assert "write equally fast" in versus(same, names)


def test_a_length_the_first_does_not_have_has_no_ratio() -> None:
    other = figures("b", (50,), prefill=(Prefill(64, Samples((1.0,)), Samples((1.0,))),))
    assert beside([figures("a", (40,)), other], [None, None]).sides[1].prefill == (None,)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_tables_have_80_columns_however_many_there_are(count: int) -> None:
    like = Likeness("checkpoint", 0.0038, 0.968, 586)
    benchmarks = [figures(f"a-very-long-name-of-an-artifact-{i}", (40.0 + i, 41.0)) for i in range(count)]
    out = io.StringIO()
    compare_report.render(beside(benchmarks, [like] * count), Console(file=out, width=80))
    lines = out.getvalue().splitlines()
    assert all(len(line.rstrip()) <= 80 for line in lines if "onnxruntime/cpu" not in line)
    assert sum(line.startswith("decode 128") for line in lines) == (1 if count < 4 else 2)
    assert any("KL divergence" in line for line in lines)


def test_warnings_name_the_artifact_and_the_machine_once() -> None:
    calm = figures("onnx", (40, 41), load_before=0.5, load_during=0.2)
    wide = figures("openvino", (20, 60), load_before=0.5, load_during=0.4)
    busy, spread = beside([calm, wide], [None, None]).warnings
    assert "50% of the machine before and 40% during" in busy and spread.startswith("openvino: the decode speed varied")


def test_names_are_short_and_differ() -> None:
    assert short_names([("/m/x-int4-onnx", "r"), ("/m/x-int4-openvino", "r")]) == ["onnx", "openvino"]
    assert short_names([("/m/x", "r"), ("/m/x-gguf", "r")]) == ["r", "gguf"]
    assert short_names([("/m/x", "r"), ("/n/x", "r")]) == ["x 1", "x 2"]


def test_what_a_verification_found_is_told_against_the_original_where_it_can(artifact: Artifact) -> None:
    nats = {"tokens": 586, "mean_kl": 0.0038, "p99_kl": 0.05, "max_kl": 0.2, "top1": 0.968, "top5": 0.99}
    limits = {"mean_kl": 0.05, "top1": 0.85, "random_kl": 0.6}
    kept: dict[str, Any] = {"verdict": "pass", "reasons": [], "path": "int8", "limits": limits, "text": nats}
    kept |= {"random": nats, "steps": None, "original": None, "date": "2026-01-01T00:00:00+00:00"}
    found = likeness(replace(artifact, verify=kept))
    assert found == Likeness("checkpoint", 0.0038, 0.968, 586)
    against = likeness(replace(artifact, verify=kept | {"original": nats | {"mean_kl": 0.07}, "read_back": 3}))
    assert against is not None and "0.07 nats to the original" in against.words
    assert likeness(replace(artifact, verify={})) is None
    assert likeness(replace(artifact, verify={"random": 3})) is None


def test_words_of_a_measurement() -> None:
    promised = Promise(decode_tps=45.0, ceiling_tps=55.0, basis="prior, x")
    found = figures("onnx", (43.0,), promise=promised)
    assert verdict(found) == "It writes 43.0 tokens/s, as promised (45.0); 7 times reading pace."
    assert "78% of the ceiling" in ceiling_line(found) and "55.0 tokens/s" in ceiling_line(found)
    assert advice(found) == () and ceiling_line(figures("x", (1.0,))) == ""
    slow = figures("onnx", (3.0,), promise=promised, warnings=("busy",))
    assert "slower than promised" in verdict(slow) and "slower than people read" in verdict(slow)
    again, threads, guess = advice(slow)
    assert "nothing else runs" in again and "--threads auto" in threads and "guess" in guess
    assert "faster than promised" in verdict(figures("onnx", (90.0,), promise=promised))
    assert verdict(figures("onnx", (6.0,))) == "It writes 6.0 tokens/s; about reading pace."


def test_how_old_a_measurement_is() -> None:
    from datetime import UTC, datetime

    now = datetime(2026, 11, 26, 12, tzinfo=UTC)
    assert ago("2026-11-24T10:00:00+00:00", now) == "2 days ago"
    assert ago("2026-11-26T11:00:00+00:00", now) == "1 hour ago"
    assert ago("2026-11-26T11:59:50+00:00", now) == "just now"
    assert ago("some day", now) == ago("2026-11-26", now).replace("2026-11-26", "some day") == "on some day"


def test_what_is_known_and_how_long_it_takes(artifact: Artifact, machine: Device) -> None:
    from edgeq.benchmark import device_key

    assert latest([artifact], machine) == [None]
    base = figures("x", (10.0,), device=device_key(machine), model=artifact.name, artifact_bytes=artifact.total_bytes)
    for one in (base, replace(base, device="another"), replace(base, date="2026-11-25T10:00:00+00:00")):
        Store().add(one)
    known = latest([artifact], machine)[0]
    assert known is not None and known.date.startswith("2026-11-25")
    seconds = expected_seconds(Workload((100,), 100, 20, 2), artifact, Promise(), known)
    assert seconds == pytest.approx(3 * 120 / 100 + 216 / 10 + 2, rel=0.01)
    assert expected_seconds(WORK, artifact, Promise()) is None
    rows = dict(work_rows(Workload(), 2, 100.0))
    assert "32, 128 and 512 tokens" in rows["prefill"] and "in turns" in rows["repeated"]
    assert rows["takes"] == "about 2 minutes"
