"""The list of runs and the help, as they look."""

from __future__ import annotations

from dataclasses import replace

import pytest
from making_data import journey, until
from snapshot import SIZES, THEMES, characters, check

from edgeq.jobs.job import Event, Failure, Job, Look
from edgeq.journey import STEPS
from edgeq.tui.app import EdgeqApp
from edgeq.tui.screens import screen_of


def look_of(number: int, kind: str, title: str, state: str, event: Event | None = None, **more: object) -> Look:
    job = Job(f"20260101-00000{number}-{kind}-ab12", kind, {}, title, "2026-01-01T00:00:00+00:00")
    return Look(job, state, event, **more)  # type: ignore[arg-type]


FULL = Failure("cannot write: No space left on device", "/home/ada/edgeq-models", "Free space or choose another --out")
LOOKS = [
    look_of(1, "profile", "This machine", "done", Event(12.0, 0, 0, "memory"), result={}),
    look_of(2, "quantize", "Quantize: SmolLM2-135M-rtn-int4-g32", "failed", Event(3.0, 40, 100, ""), failure=FULL),
    look_of(3, "quantize", "Quantize: SmolLM2-135M-gptq-int4-g32", "running",
            Event(75.0, 58_000_000, 134_500_000, "layers.13.down", part_s=4.0, part_done=1_000_000)),
    look_of(4, "export", "Export: SmolLM2-135M-gptq-int4-g32 to gguf", "paused", Event(9.0, 3, 6, "comparing")),
]  # fmt: skip


@pytest.fixture
def kept(monkeypatch):
    """The jobs that are kept; a test may take some away."""
    looks = list(LOOKS)
    monkeypatch.setattr("edgeq.tui.screens.runs.all_jobs", lambda: [seen.job for seen in looks])
    monkeypatch.setattr("edgeq.tui.screens.runs.look", lambda job: next(s for s in looks if s.job == job))
    return looks


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("what", ["several", "none"])
async def test_pictures_of_the_runs(what, size, theme, kept, tmp_path):
    if what == "none":
        kept.clear()
    app = EdgeqApp(replace(journey(tmp_path, "some/model"), step="device"))
    async with app.run_test(size=size) as pilot:
        app.theme = theme
        await pilot.press("j")
        await until(pilot, lambda: ("43%" if what == "several" else "Nothing yet") in characters(app))
        if what == "several":
            await pilot.press("down", "down")
            await until(pilot, lambda: "No space left" in characters(app))
        await check(pilot, f"runs-{what}-{size[0]}x{size[1]}-{theme.removeprefix('edgeq-')}")


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", SIZES)
async def test_pictures_of_the_help(size, theme, tmp_path, monkeypatch):
    monkeypatch.setattr("edgeq.tui.screens.quantize.QuantizeScreen.enter", lambda _: None)
    app = EdgeqApp(journey(tmp_path, "some/model"))
    async with app.run_test(size=size) as pilot:
        app.theme = theme
        await pilot.press("question_mark")
        await until(pilot, lambda: "Quantizing writes" in characters(app))
        await check(pilot, f"help-{size[0]}x{size[1]}-{theme.removeprefix('edgeq-')}")


@pytest.mark.parametrize("step", STEPS)
async def test_every_step_has_help_of_its_own(step, tmp_path, monkeypatch):
    screen = screen_of(step)
    if not screen.HELP.strip():
        pytest.skip("this step is not built yet")
    monkeypatch.setattr(type(screen), "enter", lambda _: None)
    app = EdgeqApp(replace(journey(tmp_path, "some/model"), step=step))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("question_mark")
        await until(pilot, lambda: "Keys" in characters(app) or "Everywhere" in characters(app))
        await pilot.press("question_mark")
        await until(pilot, lambda: getattr(app.screen, "STEP", None) == step)
