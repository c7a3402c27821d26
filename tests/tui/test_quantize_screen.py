"""The step quantize, for real: jobs of a tiny model that are begun, paused, cancelled, taken up, and that fail."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from making_data import guide, journey, problem, until, write_model
from snapshot import SIZES, THEMES, characters, check
from textual.widgets import Input, Select

from edgeq.checkpoint.store import Checkpoint
from edgeq.jobs import all_jobs, cancel, look
from edgeq.jobs.control import wait
from edgeq.jobs.job import Event, Job, Look
from edgeq.journey import journeys
from edgeq.quantize.so_far import MatrixDone
from edgeq.recipe import Recipe, recipe_json
from edgeq.tui.app import EdgeqApp
from edgeq.tui.making import Making

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


@pytest.fixture
def model(tmp_path):
    yield write_model(tmp_path / "model")
    for job in all_jobs():
        cancel(job)


@pytest.fixture
def slow(tmp_path):
    """One that takes long enough to be stopped on its way."""
    yield write_model(tmp_path / "slow", layers=60)
    for job in all_jobs():
        cancel(job)


def state(app: EdgeqApp) -> str:
    return app.screen._state


def text_of(app: EdgeqApp, selector: str) -> str:
    return str(app.screen.query_one(selector).render())


async def ready(pilot) -> None:
    await until(pilot, lambda: guide(pilot.app).startswith(("Press s", "This", "Another", "The folder", "Done")))


async def test_what_will_be_done_is_told_and_then_done(model, tmp_path):
    app = EdgeqApp(journey(tmp_path / "out", model))
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        said = characters(app)
        assert "4-bit numbers; 32 of them share a scale and a zero point" in text_of(app, "#words")
        assert "memory at the peak" in said
        assert "free on the disk" in said
        assert text_of(app, "#command").startswith(f"edgeq quantize {model} -o {tmp_path}/out/model-rtn-int4-g32")
        await pilot.press("s")
        await until(pilot, lambda: state(app) == "after")
        await until(pilot, lambda: "bits a weight" in characters(app))
        assert "predicted" in characters(app)
        made = Checkpoint.open(str(app.road.journey.checkpoint))
        assert made.manifest.recipe == recipe_json(Recipe(str(model)))
        await until(pilot, lambda: len(app.screen.query("#list")) == 1 and app.screen.query_one("#list").row_count > 0)
        await pilot.press("n")
        await until(pilot, lambda: app.step == "export")
    assert journeys()[0].checkpoint == str(made.path)


@posix
async def test_pause_cancel_and_go_on_really_do_it(slow, tmp_path):
    app = EdgeqApp(journey(tmp_path / "out", slow))
    async with app.run_test() as pilot:
        await ready(pilot)
        await pilot.press("s")
        await until(pilot, lambda: state(app) == "work")
        await pilot.press("p")
        await until(pilot, lambda: state(app) == "paused")
        job = app.road.job("quantize")
        before = look(job)
        assert before.state == "paused"
        await pilot.pause(1)
        assert look(job).event == before.event
        await pilot.press("p")
        await until(pilot, lambda: state(app) == "work")
        await pilot.press("c")
        await until(pilot, lambda: state(app) == "before" and "go on" in guide(app))
        assert "Cancelled" in problem(app)
        assert look(job).state == "cancelled"
        await pilot.press("s")
        await until(pilot, lambda: state(app) == "after")
    assert [j.id for j in all_jobs()] == [job.id], "it was taken up, not begun anew"


@posix
async def test_a_run_goes_on_without_its_window_and_another_one_finds_it(slow, tmp_path):
    first = EdgeqApp(journey(tmp_path / "out", slow))
    async with first.run_test() as pilot:
        await ready(pilot)
        await pilot.press("s")
        await until(pilot, lambda: state(first) == "work")
        await pilot.press("p")
        await until(pilot, lambda: state(first) == "paused")
    second = EdgeqApp(journeys()[0])
    async with second.run_test() as pilot:
        await until(pilot, lambda: state(second) == "paused")
        await pilot.press("1")
        await until(pilot, lambda: second.step == "device")
        await pilot.press("4")
        await until(pilot, lambda: second.step == "quantize" and state(second) == "paused")
        await pilot.press("p")
        await until(pilot, lambda: state(second) == "after")
    # A window that began another journey with the same choice finds the same run's checkpoint.
    third = EdgeqApp(journey(tmp_path / "out", slow))
    async with third.run_test() as pilot:
        await ready(pilot)
        assert "press u" in guide(third)


async def test_the_text_that_is_written_first_is_told_with_its_progress(model, tmp_path):
    recipe = recipe_json(Recipe(str(model), method="gptq", calibration_tokens=8192, calibration_length=128))
    app = EdgeqApp(journey(tmp_path / "out", model, recipe=recipe))
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        assert "to write it first" in characters(app)
        await pilot.press("s")
        await until(pilot, lambda: guide(app).startswith("First the text to learn from"))
        said = characters(app)
        assert "the model writes it itself" in said and "of 8,192 tokens; expected to take" in said
        assert "4 layers" in said
        assert not app.screen.query_one("#layers-title").display
        assert "%" in text_of(app, ".job-line") and "writing calibration text" in text_of(app, ".job-now")
        await until(pilot, lambda: state(app) == "after")
        assert not app.screen.query_one("#first").display


async def test_options_change_what_will_be_done_and_a_wrong_one_says_so_at_its_field(model, tmp_path):
    app = EdgeqApp(journey(tmp_path / "out", model))
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        await pilot.press("o")
        app.screen.query_one("#f-bits", Select).value = 8
        await until(pilot, lambda: "8-bit numbers" in text_of(app, "#words"))
        assert app.screen._making.out.name == "model-rtn-int8-g32"
        tokens = app.screen.query_one("#f-calibration_tokens", Input)
        tokens.value = "3"
        await until(pilot, lambda: tokens.has_class("wrong"))
        assert "3 tokens in sequences of 512" in text_of(app, "#wrong")
        tokens.value = "4096"
        await until(pilot, lambda: not tokens.has_class("wrong"))
        await ready(pilot)
        app.screen.set_focus(None)
        await pilot.press("s")
        await until(pilot, lambda: state(app) == "after")
    assert Checkpoint.open(tmp_path / "out" / "model-rtn-int8-g32").scheme.name == "rtn-int8-g32"


async def test_what_a_method_refuses_is_said_where_it_can_be_changed(model, tmp_path):
    recipe = recipe_json(Recipe(str(model), activations="static"))
    app = EdgeqApp(journey(tmp_path / "out", model, recipe=recipe))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: "can't be done" in guide(app))
        assert "reads no text" in problem(app)
        await pilot.press("s")
        await pilot.pause(0.5)
        assert all_jobs() == []
        app.screen.query_one("#f-method", Select).value = "gptq"
        await until(pilot, lambda: guide(app).startswith("Press s"))
        assert problem(app) == ""


async def test_a_model_that_is_not_there_names_the_way_out(tmp_path):
    app = EdgeqApp(journey(tmp_path / "out", tmp_path / "nowhere"))
    async with app.run_test() as pilot:
        await until(pilot, lambda: "press 2" in guide(app))
        assert "nowhere" in problem(app)


async def test_a_job_that_fails_says_why_and_can_be_tried_again(model, tmp_path):
    app = EdgeqApp(journey(tmp_path / "out", model))
    weights = model / "model.safetensors"
    whole = weights.read_bytes()
    async with app.run_test() as pilot:
        await ready(pilot)
        weights.write_bytes(whole[:1000])
        await pilot.press("s")
        await until(pilot, lambda: problem(app) != "")
        assert state(app) == "before"
        weights.write_bytes(whole)
        await pilot.press("s")
        await until(pilot, lambda: state(app) == "after")


async def test_a_checkpoint_that_is_there_can_be_used_replaced_or_left(model, tmp_path):
    out = tmp_path / "out"
    app = EdgeqApp(journey(out, model))
    async with app.run_test() as pilot:
        await ready(pilot)
        await pilot.press("s")
        await until(pilot, lambda: state(app) == "after")
    made = out / "model-rtn-int4-g32"
    again = EdgeqApp(journey(out, model))
    async with again.run_test() as pilot:
        await ready(pilot)
        assert "press u to use it" in guide(again)
        await pilot.press("w")
        await ready(pilot)
        assert again.screen._making.out.name == "model-rtn-int4-g32-2"
        assert guide(again).startswith("Press s")
    used = EdgeqApp(journey(out, model))
    async with used.run_test() as pilot:
        await ready(pilot)
        await pilot.press("u")
        await until(pilot, lambda: state(used) == "after")
        assert used.road.journey.checkpoint == str(made)
        await pilot.press("a")
        await ready(pilot)
        stamp = (made / "manifest.json").stat().st_mtime_ns
        await pilot.press("r")
        await until(pilot, lambda: state(used) == "after")
        assert (made / "manifest.json").stat().st_mtime_ns > stamp


async def test_something_else_in_the_folder_is_never_replaced(model, tmp_path):
    other = tmp_path / "out" / "model-rtn-int4-g32"
    other.mkdir(parents=True)
    (other / "letter.txt").write_text("mine")
    app = EdgeqApp(journey(tmp_path / "out", model))
    async with app.run_test() as pilot:
        await ready(pilot)
        assert "something else" in guide(app)
        for key in ("r", "u", "s"):
            await pilot.press(key)
        await pilot.pause(0.5)
    assert all_jobs() == []
    assert (other / "letter.txt").read_text() == "mine"


@posix
async def test_a_run_that_another_window_began_into_the_same_folder_is_joined(slow, tmp_path):
    from edgeq.jobs import pause, start

    out = tmp_path / "out" / "slow-rtn-int4-g32"
    job = start("quantize", {"recipe": recipe_json(Recipe(str(slow))), "out": str(out), "threads": None}, "by another")
    pause(job)
    app = EdgeqApp(journey(tmp_path / "out", slow))
    async with app.run_test() as pilot:
        await until(pilot, lambda: state(app) == "paused")
        await pilot.press("p")
        await until(pilot, lambda: state(app) == "after")
    assert wait(job, 1).state == "done"


async def test_resizing_keeps_everything_in_reach(model, tmp_path):
    app = EdgeqApp(journey(tmp_path / "out", model))
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        assert app.screen.query_one("#form").display
        await pilot.resize_terminal(80, 24)
        await pilot.pause()
        assert "memory at the peak" in characters(app)
        await pilot.press("o")
        await pilot.pause()
        assert "embedding bits" in characters(app)
        await pilot.resize_terminal(200, 60)
        await pilot.pause()
        assert "embedding bits" in characters(app)


# Pictures, of data that is the same everywhere.

RECIPE = Recipe("HuggingFaceTB/SmolLM2-135M-Instruct", method="gptq")
ANSWER: dict[str, Any] = {
    "rows": [
        ["model", "SmolLM2-135M-Instruct: 135M weights"],
        ["scheme", "gptq-int4-g32"],
        ["checkpoint", "92.6 MB, 5.50 bits a weight"],
        ["disk besides", "428 MB until it ends"],
        ["memory at the peak", "464 MB"],
        ["time", "about 2 min 42 s"],
        ["calibration text", "1 min 53 s and 2,441 MB of memory to write it first"],
        ["free on the disk", "73,039 MB"],
    ],
    "line": "about 4 min 35 s and 2,441 MB of memory",
    "peak": 2_441_000_000,
    "layers_s": 162.0,
    "writing_s": 113.0,
    "summary": "rounds column after column, each error made good by the columns to come",
    "problem": None,
}
ROLES = ("q", "k", "v", "o", "gate", "up", "down")


def matrices(layers: int) -> list[MatrixDone]:
    return [
        MatrixDone(
            f"layers.{n}.{role}", n, role, (40 + (n * 7 + k * 3) % 23) / 1e4, "worse" if n == 11 and k == 2 else None
        )
        for n in range(layers)
        for k, role in enumerate(ROLES)
    ]


@pytest.fixture
def fixed(monkeypatch):
    """A quantization that is the same on every machine, in the state that `put` says."""
    made = Making(RECIPE, Path("/home/ada/edgeq-models/SmolLM2-135M-Instruct-gptq-int4-g32"), 30)
    put: dict[str, Any] = {"making": made, "answer": ANSWER, "layers": 13, "rows": []}
    monkeypatch.setattr("edgeq.tui.making.making_of", lambda _: put["making"])
    monkeypatch.setattr("edgeq.jobs.ask.ask", lambda *_, **__: put["answer"])
    monkeypatch.setattr("edgeq.quantize.so_far.matrices_done", lambda _: matrices(put["layers"]))
    monkeypatch.setattr(Making, "made", lambda _: put["rows"])
    return put


def working(state: str = "running") -> Look:
    request = {"recipe": recipe_json(RECIPE), "out": "/home/ada/x", "expected": {"bytes": 464_000_000}}
    job = Job(
        "20260101-000000-quantize-ab12",
        "quantize",
        request,
        "Quantize: SmolLM2-135M-Instruct-gptq-int4-g32",
        "2026-01-01T00:00:00+00:00",
    )
    event = Event(75.0, 58_000_000, 134_500_000, "layers.13.down", part_s=4.0, part_done=1_000_000)
    return Look(job, state, event, 431_000_000)  # type: ignore[arg-type]


def writing(state: str = "running") -> Look:
    expected = {"bytes": 2_441_000_000, "writing_s": 113.0, "layers_s": 162.0}
    seen = working(state)
    job = replace(seen.job, request=seen.job.request | {"expected": expected})
    return replace(seen, job=job, event=Event(36.0, 20_480, 65_536, "writing calibration text", part_s=4.0))


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("what", ["before", "text", "work", "after", "refused"])
async def test_pictures(what, size, theme, fixed, monkeypatch, tmp_path):
    here = journey(Path("/home/ada/edgeq-models"), "HuggingFaceTB/SmolLM2-135M-Instruct", "gptq-int4-g32")
    if what in ("work", "text"):
        seen = working() if what == "work" else writing()
        fixed["making"] = replace(fixed["making"], job=seen.job)
        monkeypatch.setattr("edgeq.jobs.look", lambda _: seen)
    elif what == "after":
        here, fixed["layers"] = (
            replace(here, checkpoint="/home/ada/edgeq-models/SmolLM2-135M-Instruct-gptq-int4-g32"),
            30,
        )
        fixed["rows"] = [
            ("checkpoint", "/home/ada/edgeq-models/SmolLM2-135M-Instruct-gptq-int4-g32"),
            ("scheme", "gptq-int4-g32"),
            ("size", "96.1 MB, 5.50 bits a weight"),
            ("took", "3 min 12 s (predicted 2 min 42 s)"),
            ("memory at the peak", "431 MB (predicted 464 MB)"),
            ("worst relative errors", "layers.0.k 0.079, layers.0.q 0.079, layers.23.v 0.079"),
        ]
    elif what == "refused":
        why = {"what": "not enough room: the checkpoint needs 529 MB, 210 MB are free", "where": "/home/ada"}
        fixed["answer"] = ANSWER | {"problem": why | {"hint": "Free space or choose another --out"}}
    monkeypatch.setattr("edgeq.journey.save", lambda _: None)
    app = EdgeqApp(here)
    async with app.run_test(size=size) as pilot:
        app.theme = theme
        good = {"before": "Press s", "text": "First", "work": "Quantizing", "after": "Done", "refused": "This can't"}[
            what
        ]
        await until(pilot, lambda: guide(app).startswith(good))
        if what in ("work", "after"):
            await until(
                pilot, lambda: len(app.screen.query("#list")) == 1 and app.screen.query_one("#list").row_count > 0
            )
        if what == "after":
            await until(pilot, lambda: "bits a weight" in characters(app))
        await check(pilot, f"quantize-{what}-{size[0]}x{size[1]}-{theme.removeprefix('edgeq-')}")
