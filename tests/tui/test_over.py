"""Pictures of what lies over a step: help on it, and the runs of all windows."""

from __future__ import annotations

from dataclasses import replace

import pytest
from making_data import until
from snapshot import SIZES, THEMES, characters, check
from textual.widgets import Static

from edgeq.jobs.job import Event, Failure, Job, Look, State
from edgeq.journey import STEPS, begin
from edgeq.tui.app import EdgeqApp
from edgeq.tui.screens.help import HelpScreen
from edgeq.tui.screens.runs import RunsScreen
from edgeq.tui.widgets.prose import Prose


def run(state: State, title: str, done: int, seconds: float, **more: object) -> Look:
    kind = title.split(":")[0].lower()
    job = Job(f"20260101-{len(title):06}-{kind}-ab12", kind, {}, title, "2026-01-01T00:00:00+00:00")
    event = Event(seconds, done, 100, "layers.13.down", part_s=0.0, part_done=0)
    return Look(job, state, event, 431_000_000, **more)  # type: ignore[arg-type]


FULL = Failure("not enough room: the checkpoint needs 529 MB, 210 MB are free", "/home/ada", "Free space")
RUNS = [
    run("running", "Quantize: SmolLM2-135M-Instruct-gptq-int4-g32", 43, 75),
    run("paused", "Quantize: qwen3-0.6b to awq-int4-g128", 12, 310),
    run("done", "Benchmark: SmolLM2-135M-Instruct-gptq-int4-g32-onnx", 100, 64),
    run(
        "done",
        "Export: SmolLM2-135M-Instruct-gptq-int4-g32 to onnx",
        100,
        14,
        result={"artifact": "/home/ada/SmolLM2-135M-Instruct-gptq-int4-g32-onnx"},
    ),
    run("failed", "Quantize: a-model-with-a-rather-long-name-7b-instruct to gguf-q4_k_m", 61, 4210, failure=FULL),
]


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("what", ["help-plan", "help-quantize", "runs-none", "runs-several", "runs-failed"])
async def test_pictures(what, size, theme, monkeypatch):
    monkeypatch.setattr("edgeq.journey.save", lambda _: None)
    by_job = {seen.job.id: seen for seen in RUNS}
    jobs = [] if what == "runs-none" else [seen.job for seen in reversed(RUNS)]
    monkeypatch.setattr("edgeq.tui.screens.runs.all_jobs", lambda: jobs)
    monkeypatch.setattr("edgeq.tui.screens.runs.look", lambda job: by_job[job.id])
    monkeypatch.setattr("edgeq.jobs.shelf.log_of", lambda job: "quantizing layer 18 of 30\n")
    step = "quantize" if what == "help-quantize" else "plan"
    app = EdgeqApp(replace(begin("/home/ada"), step=step))  # of which nothing can be done: a quiet screen beneath
    async with app.run_test(size=size) as pilot:
        app.theme = theme
        await pilot.pause()
        if what.startswith("help"):
            await pilot.press("question_mark")
            await until_over(pilot, HelpScreen, lambda: len(app.screen.query(Prose)) == 1)
        else:
            await pilot.press("j")
            await until_over(pilot, RunsScreen, lambda: str(app.screen.query_one("#run-now", Static).render()) != "")
            if what == "runs-failed":
                await pilot.press(*["down"] * 4, "l")
        await check(pilot, f"{what}-{size[0]}x{size[1]}-{theme.removeprefix('edgeq-')}")


async def until_over(pilot, screen, seen) -> None:
    """As `until`; what lies over a step has no guide."""
    while not (isinstance(pilot.app.screen, screen) and seen()):
        await pilot.pause(0.05)
    await pilot.pause()


@pytest.mark.parametrize("step", STEPS)
async def test_help_tells_each_step_s_keys_and_goes_away_again(step, monkeypatch):
    monkeypatch.setattr("edgeq.journey.save", lambda _: None)
    app = EdgeqApp(replace(begin("/home/ada"), step=step))
    async with app.run_test(size=(200, 60)) as pilot:
        await pilot.pause()
        keys = [b.tooltip or b.description for b in type(app.screen).BINDINGS if b.description]
        await pilot.press("question_mark")
        await until_over(pilot, HelpScreen, lambda: "Everywhere" in characters(app))
        said = " ".join(characters(app).replace("│", " ").split())
        assert " Here Everywhere " in said
        assert keys and all(text.split()[0] in said for text in keys)
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, HelpScreen))
