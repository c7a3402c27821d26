"""What comes between: a cancel and a restart, a full disk, another size of the window, a window that is closed."""

from __future__ import annotations

import errno
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from making_data import guide, journey, problem, until, write_model
from snapshot import characters

from edgeq.jobs import all_jobs, cancel, control, look, pause, start
from edgeq.jobs.control import wait
from edgeq.journey import journeys
from edgeq.model.weights import open_source
from edgeq.quantize.engine import quantize
from edgeq.recipe import Recipe, recipe_json
from edgeq.tui.app import EdgeqApp
from edgeq.tui.screens.runs import RunsScreen

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


@pytest.fixture
def model(tmp_path):
    """One whose quantization takes long enough to be stopped on its way."""
    yield write_model(tmp_path / "model", layers=60)
    for job in all_jobs():
        cancel(job)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a checkpoint but the report, which holds times."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "report.json")
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def state(app: EdgeqApp) -> str:
    return app.screen._state


async def ready(pilot) -> None:
    await until(pilot, lambda: guide(pilot.app).startswith("Press s"))


async def begin_and_stop_on_the_way(pilot) -> None:
    """Start, and pause when some layers are done and others are not."""
    app = pilot.app
    await ready(pilot)
    await pilot.press("s")
    await until(pilot, lambda: state(app) == "work")
    await until(pilot, lambda: app.screen._making.layers()[0] != [] or state(app) != "work")
    await pilot.press("p")
    await until(pilot, lambda: state(app) == "paused")


async def test_a_run_that_is_cancelled_half_way_ends_in_the_same_bytes_after_a_restart(model, tmp_path):
    first = EdgeqApp(journey(tmp_path / "out", model))
    async with first.run_test() as pilot:
        await begin_and_stop_on_the_way(pilot)
        await pilot.press("c")
        await until(pilot, lambda: state(first) == "before" and "go on" in guide(first))
        done = len(first.screen._making.layers()[0])
        assert 0 < done < 60 * 7
    assert not (tmp_path / "out" / "model-rtn-int4-g32").exists()
    second = EdgeqApp(journeys()[0])
    async with second.run_test() as pilot:
        await until(pilot, lambda: "go on" in guide(second))
        await pilot.press("s")
        await until(pilot, lambda: state(second) == "after")
    made = Path(str(second.road.journey.checkpoint))
    undisturbed = quantize(open_source(str(model)), Recipe(str(model)), tmp_path / "undisturbed", threads=1)
    assert contents(made) == contents(undisturbed.path)
    assert len(all_jobs()) == 1


async def test_no_room_on_the_disk_is_told_before_anything_is_begun_and_asked_anew(model, tmp_path, monkeypatch):
    from edgeq.jobs import ask

    real, full = ask.ask, {"what": "not enough room", "where": "/home", "hint": "Free space or choose another --out"}

    def asked(question, request, *, again=False):
        return real(question, request, again=again) | {"problem": dict(full) or None}

    monkeypatch.setattr(ask, "ask", asked)
    app = EdgeqApp(journey(tmp_path / "out", model))
    async with app.run_test() as pilot:
        await until(pilot, lambda: "can't be done" in guide(app))
        assert problem(app) == "not enough room. Free space, or choose another folder"
        await pilot.press("s")
        await until(pilot, lambda: problem(app).startswith("not enough room"))
        assert all_jobs() == []
        full.clear()  # the person made room
        await pilot.press("s")
        await until(pilot, lambda: state(app) == "after")


async def test_a_disk_that_fills_up_on_the_way_is_told_and_the_work_is_taken_up(model, tmp_path, monkeypatch):
    app = EdgeqApp(journey(tmp_path / "out", model))
    async with app.run_test() as pilot:
        await ready(pilot)
        monkeypatch.setattr(control, "WORKER", "full_disk_worker")
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
        await pilot.press("s")
        await until(pilot, lambda: problem(app) != "")
        assert problem(app).startswith(f"cannot write: {os.strerror(errno.ENOSPC)}")
        assert "Free space" in problem(app)
        assert "go on" in guide(app)
        done = len(app.screen._making.layers()[0])
        assert done > 0
        monkeypatch.setattr(control, "WORKER", "edgeq.jobs.worker")
        await pilot.press("s")
        await until(pilot, lambda: state(app) == "after")


async def test_the_window_may_change_its_size_while_it_works(model, tmp_path):
    app = EdgeqApp(journey(tmp_path / "out", model))
    async with app.run_test(size=(120, 40)) as pilot:
        await begin_and_stop_on_the_way(pilot)
        await until(pilot, lambda: len(app.screen.query("#list")) == 1)
        for size in ((80, 24), (200, 60), (40, 12), (120, 40)):
            await pilot.resize_terminal(*size)
            await until(pilot, lambda size=size: tuple(app.size) == size)
            await until(pilot, lambda: "Paused" in characters(app))
        await pilot.press("p")
        await until(pilot, lambda: state(app) == "work")
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: state(app) == "after")
        await until(pilot, lambda: "bits a weight" in characters(app))


async def test_a_run_whose_window_is_closed_is_found_by_another_window_in_its_list(model, tmp_path):
    first = EdgeqApp(journey(tmp_path / "out", model))
    async with first.run_test() as pilot:
        await begin_and_stop_on_the_way(pilot)
    job = all_jobs()[0]
    assert look(job).state == "paused", "it goes its own way"
    other = EdgeqApp(replace(journey(tmp_path / "elsewhere", "some/model"), step="device"))
    async with other.run_test() as pilot:
        await until(pilot, lambda: other.step == "device")
        await pilot.press("j")
        await until(pilot, lambda: isinstance(other.screen, RunsScreen) and "paused" in characters(other))
        await pilot.press("p")
        await until(pilot, lambda: "paused" not in characters(other))
        await pilot.press("enter")
        await until(pilot, lambda: other.step == "quantize" and other.road.journey.model == str(model))
        await until(pilot, lambda: not isinstance(other.screen, RunsScreen) and state(other) == "after")
    assert wait(job, 1).state == "done"


async def test_the_list_of_runs_cancels_and_forgets(model, tmp_path):
    request = {"recipe": recipe_json(Recipe(str(model))), "out": str(tmp_path / "out"), "threads": 1}
    job = start("quantize", request, "by another window")
    pause(job)
    app = EdgeqApp(replace(journey(tmp_path, "some/model"), step="device"))
    async with app.run_test(notifications=True) as pilot:
        await pilot.press("j")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen) and "paused" in characters(app))
        await pilot.press("d")
        await until(pilot, lambda: "is at work" in characters(app))
        await pilot.press("c")
        await until(pilot, lambda: look(job).state == "cancelled" and "cancelled" in characters(app))
        await pilot.press("enter")
        await until(pilot, lambda: "No journey is kept" in characters(app))
        await pilot.press("d")
        await until(pilot, lambda: all_jobs() == [] and "Nothing yet" in characters(app))
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, RunsScreen))
