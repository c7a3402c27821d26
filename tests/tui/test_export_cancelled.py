"""An export that is cancelled from the screen, while it writes and while it is proved, and is brought to its end."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from making_data import guide, journey, problem, until, write_model
from textual.pilot import Pilot

from edgeq.artifact import read_artifact
from edgeq.jobs import all_jobs, cancel, look
from edgeq.journey import Journey
from edgeq.model.weights import open_source
from edgeq.quantize.engine import quantize
from edgeq.recipe import Recipe
from edgeq.tui.app import EdgeqApp

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
LAYERS = 200  # which the export counts one by one: long enough to be cancelled among them


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model and its checkpoint."""
    place = tmp_path_factory.mktemp("deep")
    model, out = write_model(place / "deep", layers=LAYERS), place / "deep-rtn-int4-g32"
    quantize(open_source(str(model)), Recipe(str(model)), out, threads=1)
    return model, out


@pytest.fixture
def made(deep: tuple[Path, Path], tmp_path: Path) -> Any:
    """A journey with the checkpoint, which lies in a folder of the test's own."""
    model, out = deep
    here = tmp_path / "out" / out.name
    shutil.copytree(out, here)
    yield replace(journey(tmp_path / "out", model), step="export", checkpoint=str(here))
    for job in all_jobs():
        cancel(job)


def state(app: EdgeqApp) -> str:
    return app.screen._state


def left(out: Path) -> list[str]:
    """Whatever has the artifact's name in its own."""
    return sorted(p.name for p in out.parent.iterdir() if out.name in p.name)


async def caught(pilot: Pilot[None], when: Callable[[], bool]) -> None:
    """Begin, and cancel as soon as it is so."""
    await until(pilot, lambda: guide(pilot.app).startswith("Press s to export"))
    await pilot.press("s")
    await until(pilot, lambda: state(pilot.app) == "work")
    await until(pilot, when, 120)
    assert state(pilot.app) == "work", "it was faster than this test"
    await pilot.press("c")
    await until(pilot, lambda: "Cancelled" in problem(pilot.app))
    assert look(pilot.app.road.job("export")).state == "cancelled"


async def test_cancelled_while_it_writes_nothing_is_left_and_it_begins_again(made: Journey):
    out = Path(f"{made.checkpoint}-onnx")
    app = EdgeqApp(made)
    async with app.run_test(size=(120, 40)) as pilot:
        await caught(pilot, lambda: left(out) != [])
        assert left(out) == [], "neither the artifact nor what it was written into"
        assert state(app) == "before"
        assert "Nothing was kept. Press s to begin again" in problem(app)
        assert guide(app).startswith("Press s to export")
        assert app.road.journey.artifacts == ()
        await pilot.press("s")
        await until(pilot, lambda: state(app) == "after", 120)
        assert read_artifact(out).verify["verdict"] == "pass"
        assert left(out) == [out.name]
        assert app.road.journey.artifacts == (str(out),)


async def test_cancelled_while_it_is_proved_the_artifact_is_told_to_be_unproved(made: Journey):
    out = Path(f"{made.checkpoint}-onnx")
    app = EdgeqApp(made)
    async with app.run_test(size=(120, 40)) as pilot:
        await caught(pilot, out.exists)
        assert left(out) == [out.name]
        assert read_artifact(out).verify == {}, "it is whole, and nothing has judged it"
        assert state(app) == "exists"
        assert "was not proved: press r to export anew" in guide(app)
        assert "Press s" not in problem(app), "a key that does nothing here"
        assert app.road.journey.artifacts == ()
        await pilot.press("r")
        await until(pilot, lambda: state(app) == "after", 120)
        assert read_artifact(out).verify["verdict"] == "pass"
        assert app.road.journey.artifacts == (str(out),)
