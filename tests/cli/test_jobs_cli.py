"""`edgeq jobs`: the list, and what can be done with a job, by its real processes."""

from __future__ import annotations

import json
import sys

import psutil
import pytest

from edgeq.cli.main import main
from edgeq.jobs import all_jobs, cancel, control, look, start
from edgeq.jobs.control import wait
from edgeq.recipe import Recipe, recipe_json


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEQ_HOME", str(tmp_path / "home"))
    yield
    for job in all_jobs():
        cancel(job)


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main(["jobs", *(str(a) for a in arguments)])
    return int(left.value.code or 0)


def begin(model, out):
    return start(
        "quantize", {"recipe": recipe_json(Recipe(str(model))), "out": str(out), "threads": 1}, "a [tiny] model"
    )


def test_without_jobs_it_says_so(capsys):
    assert run() == 0
    assert "No jobs" in capsys.readouterr().out


def test_a_finished_and_a_failed_job_in_the_list(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    done, failed = begin(model, tmp_path / "out"), begin(tmp_path / "nowhere", tmp_path / "other")
    assert wait(done, 60).state == "done"
    assert wait(failed, 60).state == "failed"
    assert run() == 0
    printed = capsys.readouterr().out
    assert "a [tiny] model" in printed
    assert "100%" in printed
    assert str(tmp_path / "out") in printed
    assert "no such file or folder" in printed
    assert run("--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["state"], one["share"]) for one in found] == [("done", 1.0), ("failed", None)]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_pause_resume_cancel_and_forget(model, tmp_path, capsys, monkeypatch):
    real = control.process.begin
    monkeypatch.setattr(control.process, "begin", lambda *a, **k: _stopped(real(*a, **k)))
    job = begin(model, tmp_path / "out")  # it stands still from its first moment
    monkeypatch.setattr(control.process, "begin", real)
    assert look(job).state == "paused"
    assert run("--resume", job.id) == 0
    assert wait(job, 60).state == "done"
    assert run("--pause", job.id) == 0, "nothing to do is no error"
    assert run("--resume", job.id) == 2
    assert "this job is done" in capsys.readouterr().err
    assert run("--forget", job.id[:12]) == 0
    assert all_jobs() == []


def test_cancel_by_the_beginning_of_its_id(model, tmp_path, capsys):
    job = begin(model, tmp_path / "out")
    assert run("--cancel", job.id[:20]) == 0
    assert look(job).state in ("cancelled", "done")


def test_watch_ends_when_nothing_is_at_work(model, tmp_path, capsys):
    job = begin(model, tmp_path / "out")
    assert run("--watch") == 0
    assert look(job).state == "done"


def test_bad_input(capsys):
    assert run("--pause", "nothing") == 2
    assert "no job 'nothing'" in capsys.readouterr().err
    assert run("--pause", "a", "--cancel", "b") == 2


def _stopped(pid: int) -> int:
    control.process.suspend(psutil.Process(pid))  # which waits until it stands still
    return pid
