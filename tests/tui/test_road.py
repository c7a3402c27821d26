"""The whole road, for real and by keys alone: from nothing to a delivered model, as a new user would walk it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from making_data import guide, journey, problem, until, write_model
from snapshot import characters
from textual.pilot import Pilot
from textual.widgets import Input

from edgeq.artifact import read_artifact
from edgeq.checkpoint.store import Checkpoint
from edgeq.jobs import all_jobs, cancel
from edgeq.journey import begin, journeys
from edgeq.store import Store
from edgeq.tui.app import EdgeqApp
from edgeq.tui.launch import journey_of

PATIENCE = 180.0
SCHEME, TARGET = "rtn-int4-g32", "onnxruntime/cpu"


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A model of this person's own."""
    monkeypatch.setattr("edgeq.model.found.hub_cache", lambda: tmp_path / "no-cache")
    yield write_model(tmp_path / "mine" / "tiny", layers=8)
    for job in all_jobs():
        cancel(job)


def state(app: EdgeqApp) -> str:
    return str(getattr(app.screen, "_state", ""))


async def at(pilot: Pilot[None], step: str, start: str) -> None:
    """The step is shown, and its guide says this."""
    await until(pilot, lambda: shown(pilot, step) and guide(pilot.app).startswith(start), PATIENCE)


def shown(pilot: Pilot[None], step: str) -> bool:
    return getattr(pilot.app.screen, "STEP", "") == step and bool(pilot.app.screen.query("#guide"))


async def write(pilot: Pilot[None], text: str) -> None:
    for letter in text:
        await pilot.press(
            {" ": "space", "/": "slash", ".": "full_stop", "-": "minus", "_": "underscore"}.get(letter, letter)
        )


def line(app: EdgeqApp) -> Input:
    return app.screen.query_one(Input)


async def choose_model(pilot: Pilot[None], model: Path) -> None:
    """First a path that isn't there, then the right one."""
    app: Any = pilot.app
    await at(pilot, "model", "Choose with")
    await pilot.press("slash")
    await write(pilot, "no/such/model")
    await until(pilot, lambda: line(app).value == "no/such/model")
    await pilot.press("enter")
    await until(pilot, lambda: problem(app) != "", PATIENCE)
    assert "choose another" in guide(app)
    await pilot.press("home", "ctrl+k")
    await write(pilot, str(model.relative_to(Path.cwd())))
    await until(pilot, lambda: problem(app) == "" and "As you typed it" in characters(app))
    await pilot.press("enter")


async def choose_candidate(pilot: Pilot[None]) -> None:
    app: Any = pilot.app
    await until(pilot, lambda: shown(pilot, "plan") and app.screen._looked is not None, PATIENCE)
    seen = []
    while (c := app.screen._looked) is not None and (c.scheme.name, c.target) != (SCHEME, TARGET):
        assert c not in seen, f"{SCHEME} on {TARGET} is not in the table"
        seen.append(c)
        await pilot.press("down")
        await until(pilot, lambda c=c: app.screen._looked is not c)
    await pilot.press("enter")


async def quantize(pilot: Pilot[None]) -> None:
    """Cancelled on its way, and taken up where it stopped."""
    app: Any = pilot.app
    await at(pilot, "quantize", "Press s")
    await pilot.press("s")
    await until(pilot, lambda: state(app) == "work", PATIENCE)
    job = app.road.job("quantize")
    await pilot.press("c")  # the job has still to load what it computes with: it can't be over
    await until(pilot, lambda: state(app) == "before" and "go on" in guide(app), PATIENCE)
    assert "Cancelled" in problem(app)
    await pilot.press("s")
    await until(pilot, lambda: state(app) == "after", PATIENCE)
    assert problem(app) == ""
    assert app.road.job("quantize").id == job.id
    assert "Press n" in guide(app)


async def export(pilot: Pilot[None]) -> None:
    app: Any = pilot.app
    await at(pilot, "export", "Press s to export to onnx")
    await pilot.press("s")
    await until(pilot, lambda: state(app) == "after", PATIENCE)
    assert "Press n to measure it" in guide(app)


async def bench(pilot: Pilot[None]) -> None:
    app: Any = pilot.app
    await at(pilot, "bench", "Press s to measure")
    await pilot.press("s")
    await until(pilot, lambda: state(app) == "after", PATIENCE)
    assert "Press n to chat" in guide(app)


async def chat(pilot: Pilot[None]) -> None:
    app: Any = pilot.app
    await until(pilot, lambda: app.road.chatting is not None and isinstance(app.screen.focused, Input), PATIENCE)
    await write(pilot, "w1 q n")
    await pilot.press("enter")
    talk = app.road.chatting.talk
    await until(pilot, lambda: bool(talk.turns) and not talk.busy, PATIENCE)
    assert talk.turns[0].question == "w1 q n"
    assert talk.turns[0].answers["quantized"].tokens > 0
    await pilot.press("escape")
    await until(pilot, lambda: not isinstance(app.screen.focused, Input))


async def deliver(pilot: Pilot[None]) -> None:
    app: Any = pilot.app
    await at(pilot, "deliver", "Done: tiny is ready")
    await pilot.press("w")
    await until(pilot, lambda: isinstance(app.screen.focused, Input))
    await pilot.press("enter")
    await until(pilot, lambda: guide(app).startswith("Done: the report is"), PATIENCE)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
async def test_from_nothing_to_a_delivered_model_and_back_another_day(model: Path, tmp_path: Path) -> None:
    app = EdgeqApp(begin(tmp_path / "out"))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: shown(pilot, "device") and "Press n to choose a model" in guide(app), PATIENCE)
        await pilot.press("n")
        await choose_model(pilot, model)
        await choose_candidate(pilot)
        await quantize(pilot)
        await pilot.resize_terminal(120, 40)
        await pilot.press("n")
        await export(pilot)
        await pilot.press("n")
        await bench(pilot)
        await pilot.resize_terminal(80, 24)
        await pilot.press("n")
        await chat(pilot)
        await pilot.press("n")
        await deliver(pilot)
        await pilot.press("q")
    kept = journeys()[0]
    assert kept.checkpoint is not None
    assert Checkpoint.open(kept.checkpoint).scheme.name == SCHEME
    assert read_artifact(kept.artifacts[0]).verify["verdict"] == "pass"
    assert len(Store().benchmarks()) == 1
    assert Path(f"{kept.artifacts[0]}-report.md").exists()
    again = EdgeqApp(journey_of(resume="last"))
    async with again.run_test(size=(80, 24)) as pilot:
        await at(pilot, "deliver", "Done: tiny is ready")
        assert "onnx" in characters(again)
        await pilot.press("y")
        assert kept.artifacts[0] in again.clipboard
    assert len(journeys()) == 1


def footer(app: EdgeqApp) -> str:
    return characters(app).splitlines()[-1]


async def test_next_stays_where_the_step_is_still_to_be_taken(tmp_path: Path) -> None:
    app = EdgeqApp(replace(begin(tmp_path / "out").with_device("rpi-5"), step="model"))
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await at(pilot, "model", "Choose with")
        await pilot.press("n")
        await until(pilot, lambda: any("Model comes first" in one.message for one in app._notifications))
        assert app.step == "model"
        await pilot.press("b")
        await until(pilot, lambda: shown(pilot, "device"))


async def test_the_footer_names_only_keys_that_work(tmp_path: Path) -> None:
    app = EdgeqApp(replace(begin(tmp_path / "out").with_device("rpi-5"), step="model"))
    async with app.run_test(size=(80, 24)) as pilot:
        await at(pilot, "model", "Choose with")
        await until(pilot, lambda: all(key in footer(app) for key in ("n Next", "? Help", "q Quit", "/ Search")))
        await pilot.press("slash")
        await until(pilot, lambda: all(key in footer(app) for key in ("esc List", "f1 Help", "^q Quit")))
        assert not any(key in footer(app) for key in ("n Next", "? Help", " q Quit", "/ Search", "j Runs"))
        await pilot.press("escape")
        await until(pilot, lambda: "q Quit" in footer(app) and "^q" not in footer(app))


async def test_a_field_of_options_says_how_to_leave_it(model: Path, tmp_path: Path) -> None:
    app = EdgeqApp(journey(tmp_path / "out", model))
    async with app.run_test(size=(120, 40)) as pilot:
        await at(pilot, "quantize", "Press s")
        for leave in ("escape", "enter"):
            await pilot.press("o")
            while not isinstance(app.screen.focused, Input):
                await pilot.press("tab")
            await until(pilot, lambda: guide(app).startswith("Enter leaves the field") and "esc Keys" in footer(app))
            assert "s Start" not in footer(app)
            await pilot.press(leave)
            await at(pilot, "quantize", "Press s")
            await until(pilot, lambda: "s Start" in footer(app) and "esc" not in footer(app))
        await pilot.press("s")
        await until(pilot, lambda: state(app) in ("work", "after"), PATIENCE)
