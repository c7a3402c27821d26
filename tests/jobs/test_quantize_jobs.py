"""Quantizing as a job: paused, cancelled and killed ones end in the very bytes of one that nobody disturbed."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeq.jobs import Job, cancel, look, pause, resume, shelf, start
from edgeq.jobs.control import wait
from edgeq.model.weights import open_source
from edgeq.quantize.engine import quantize
from edgeq.quantize.journal import NAME
from edgeq.recipe import Recipe, recipe_json

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a checkpoint but the report, which holds times."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "report.json")
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def recipe_of(model: Path, method: str) -> Recipe:
    return Recipe(str(model), method=method, calibration_tokens=512, calibration_length=64)


@pytest.fixture
def undisturbed(model: Path, tmp_path: Path) -> Callable[[str], dict[str, bytes]]:
    def make(method: str) -> dict[str, bytes]:
        made = quantize(open_source(str(model)), recipe_of(model, method), tmp_path / "undisturbed", threads=1)
        return contents(made.path)

    return make


def begin(model: Path, out: Path, method: str) -> Job:
    request = {"recipe": recipe_json(recipe_of(model, method)), "out": str(out), "threads": 1}
    return start("quantize", request, f"{method} of a small model")


def shards_done(out: Path) -> int:
    try:
        return sum(1 for line in (out.parent / f"{out.name}.partial" / NAME).read_bytes().splitlines() if line)
    except OSError:
        return 0


@pytest.mark.parametrize(
    ("how", "method"), [("pause", "rtn"), ("cancel", "rtn"), ("kill", "rtn"), ("pause", "gptq"), ("kill", "gptq")]
)
def test_a_disturbed_job_ends_in_the_same_bytes(how, method, model, tmp_path, undisturbed, until):
    out = tmp_path / "out"
    job = begin(model, out, method)
    until(job, lambda seen: shards_done(out) >= 3 or seen.state != "running")
    if how == "pause":
        pause(job)
        assert look(job).state == "paused"
        done, files = shards_done(out), contents(out.with_name("out.partial"))
        time.sleep(0.5)
        assert (shards_done(out), contents(out.with_name("out.partial"))) == (done, files)
    elif how == "cancel":
        cancel(job)
        assert look(job).state == "cancelled"
    else:
        os.kill(shelf.load(shelf.folder_of(job) / shelf.PROCESS)["pid"], signal.SIGKILL)
        assert until(job, lambda seen: seen.state != "running").state == "interrupted"
    assert not out.exists(), "it was done before it could be disturbed"
    before = shards_done(out)
    assert before >= 3
    resume(job)
    seen = wait(job, 120)
    assert (seen.state, seen.failure) == ("done", None)
    assert seen.result["checkpoint"] == str(out)
    assert contents(out) == undisturbed(method)


def test_a_second_job_into_the_same_folder_says_that_the_first_one_writes_it(model, tmp_path, until):
    out = tmp_path / "out"
    first = begin(model, out, "rtn")
    until(first, lambda _: shards_done(out) >= 1)
    pause(first)
    second = wait(begin(model, out, "rtn"), 60)
    assert second.state == "failed"
    assert "another run is writing" in second.failure.what
    resume(first)
    assert wait(first, 120).state == "done"


def test_a_model_that_is_not_there_is_named(tmp_path):
    seen = wait(begin(tmp_path / "nowhere", tmp_path / "out", "rtn"), 60)
    assert seen.state == "failed"
    assert "nowhere" in f"{seen.failure.what} {seen.failure.where}"
    assert not (tmp_path / "out.partial").exists()
