"""What is asked first: the journeys that could go on, what of them runs now, and a new one."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from making_data import journey, until, write_model
from snapshot import SIZES, THEMES, characters, check
from textual.widgets import OptionList

from edgeq.errors import EdgeqError
from edgeq.jobs import all_jobs, cancel, start
from edgeq.journey import Journey, begin, journeys, save
from edgeq.recipe import Recipe, recipe_json
from edgeq.store import home
from edgeq.tui.app import EdgeqApp
from edgeq.tui.returning import Way, ways
from edgeq.tui.screens.welcome import WelcomeScreen


def kept(folder: Path, model: str, hours: float = 0, **changes: object) -> Journey:
    """A journey that was last changed so long ago."""
    one = replace(begin(folder).with_model(model), **changes)  # type: ignore[arg-type]
    save(one)
    then = time.time() - 3600 * hours
    os.utime(home() / "journeys" / f"{one.id}.json", (then, then))
    return one


def chooser(app: EdgeqApp) -> OptionList:
    return app.screen.query_one(OptionList)


async def listed(pilot) -> None:
    await until_there(pilot, lambda: chooser(pilot.app).option_count > 0)


async def until_there(pilot, seen) -> None:
    """As `until`; this screen has no guide."""
    end = time.monotonic() + 60
    while not (isinstance(pilot.app.screen, WelcomeScreen) and seen()):
        assert time.monotonic() < end
        await pilot.pause(0.05)
    await pilot.pause()


async def test_each_journey_says_where_it_is_and_when_that_was(tmp_path):
    kept(tmp_path, "/home/ada/models/qwen3-4b", 50, step="plan")
    kept(tmp_path, "Qwen/Qwen3-0.6B", 2.5, step="quantize", scheme="gptq-int4-g32", target="onnxruntime/cpu")
    app = EdgeqApp(begin(tmp_path), welcome=True)
    async with app.run_test() as pilot:
        await listed(pilot)
        said = " ".join(characters(app).split())
        for part in (
            "Qwen/Qwen3-0.6B, gptq-int4-g32 on onnxruntime/cpu",
            "at Quantize, 2 hours ago",
            "qwen3-4b",
            "at Plan, 2 days ago",
            "Begin anew",
        ):
            assert part in said
        assert "/home/ada" not in said


async def test_the_latest_is_gone_on_with_by_enter(tmp_path):
    old = kept(tmp_path, "1B", 5, step="model")
    last = kept(tmp_path, "7B", 1, step="model")
    app = EdgeqApp(begin(tmp_path), welcome=True)
    async with app.run_test() as pilot:
        await listed(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: app.road.journey.id == last.id and app.step == "model")
    assert {j.id for j in journeys()} == {old.id, last.id}


@pytest.mark.parametrize("keys", [["n"], ["end", "enter"]])
async def test_a_new_one_is_begun(tmp_path, keys):
    kept(tmp_path, "7B", 1, step="model")
    app = EdgeqApp(begin(tmp_path), welcome=True)
    async with app.run_test() as pilot:
        await listed(pilot)
        await pilot.press(*keys)
        await until(pilot, lambda: not isinstance(app.screen, WelcomeScreen) and app.step == "device")
        assert app.road.journey.model is None


async def test_one_that_is_gone_meanwhile_is_said(tmp_path, monkeypatch):
    kept(tmp_path, "7B", 1)

    def gone(journey_id: str) -> Journey:
        raise EdgeqError(f"no journey {journey_id!r}")

    monkeypatch.setattr("edgeq.tui.screens.welcome.find_journey", gone)
    app = EdgeqApp(begin(tmp_path), welcome=True)
    async with app.run_test() as pilot:
        await listed(pilot)
        await pilot.press("enter")
        await until_there(pilot, lambda: "no journey" in str(app.screen.query_one("#welcome-problem").render()))


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
async def test_what_runs_now_is_said(tmp_path):
    model = write_model(tmp_path / "slow", layers=60)
    request = {"recipe": recipe_json(Recipe(str(model))), "out": str(tmp_path / "out"), "threads": 1}
    job = start("quantize", request, "Quantize: slow")
    one = journey(tmp_path, model).with_job("quantize", job.id)
    save(one)
    app = EdgeqApp(begin(tmp_path), welcome=True)
    async with app.run_test() as pilot:
        await listed(pilot)
        await until_there(pilot, lambda: "Quantize runs now" in characters(app))
        for other in all_jobs():
            cancel(other)
        await until_there(pilot, lambda: "runs now" not in characters(app))


def test_without_journeys_there_is_nothing_to_go_on_with():
    assert ways() == []


WAYS = [
    Way(
        "a", "SmolLM2-135M-Instruct, gptq-int4-g32 on onnxruntime/cpu", "at Quantize, just now, Quantize runs now: 42%"
    ),
    Way("b", "meta-llama/Llama-3.2-3B-Instruct", "at Plan, 2 hours ago"),
    Way("c", "7B", "at Model, on 2026-01-31"),
]


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", SIZES)
async def test_pictures(size, theme, monkeypatch):
    monkeypatch.setattr("edgeq.tui.returning.ways", lambda: WAYS)
    monkeypatch.setattr("edgeq.journey.save", lambda _: None)
    app = EdgeqApp(replace(begin("/home/ada"), step="quantize"), welcome=True)  # a quiet screen beneath
    async with app.run_test(size=size) as pilot:
        app.theme = theme
        await listed(pilot)
        await check(pilot, f"welcome-{size[0]}x{size[1]}-{theme.removeprefix('edgeq-')}")
