"""The step benchmark, for real: a tiny artifact is measured, alone and beside another, cancelled and found again."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from making_data import guide, journey, problem, until, write_model
from snapshot import SIZES, THEMES, characters, check
from textual.widgets import Input

from edgeq.artifact import Artifact
from edgeq.benchmark import Benchmark, Decode, Prefill, Promise, Samples
from edgeq.jobs import all_jobs, cancel, pause
from edgeq.jobs.job import Event, Job, Look
from edgeq.journey import Journey, journeys
from edgeq.measure.bench import Workload
from edgeq.measure.compare import beside
from edgeq.measure.likeness import Likeness
from edgeq.model.weights import open_source
from edgeq.quantize.engine import quantize
from edgeq.recipe import Recipe
from edgeq.registry import exporter
from edgeq.store import Store
from edgeq.tui import benching
from edgeq.tui.app import EdgeqApp
from edgeq.tui.benching import Benching, Choice
from edgeq.tui.widgets.gauge import gauge
from edgeq.tui.widgets.speeds import columns

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
SHORT = Workload(prompt_tokens=(8, 16), tokens=8, context=4, reps=2, threads=1)
LONG = Workload(prompt_tokens=(8,), tokens=48, context=4, reps=3_000, threads=1)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A model, its checkpoint, its artifact."""
    place = tmp_path_factory.mktemp("exported")
    model, out = write_model(place / "model", layers=2), place / "out" / "model-rtn-int4-g32"
    made = quantize(open_source(str(model)), Recipe(str(model)), out, threads=1)
    artifact = place / "out" / "model-rtn-int4-g32-onnx"
    exporter("onnx").export(made, artifact)
    return model, out, artifact


@pytest.fixture
def made(exported: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A journey that has its artifact; a measurement is short."""
    model, out, artifact = exported
    work(monkeypatch, SHORT)
    yield replace(journey(out.parent, model), step="bench", checkpoint=str(out), artifacts=(str(artifact),))
    for job in all_jobs():
        cancel(job)


def work(monkeypatch: pytest.MonkeyPatch, wanted: Workload) -> None:
    first = benching.benching_of
    monkeypatch.setattr(benching, "benching_of", lambda road: replace(first(road), work=wanted))


def state(app: EdgeqApp) -> str:
    return app.screen._state


def gauge_of(app: EdgeqApp) -> str:
    return str(app.screen.query_one("#gauge").render())


async def ready(pilot) -> None:
    await until(pilot, lambda: state(pilot.app) not in ("thinking", "work", "paused"))


async def test_an_artifact_is_measured_beside_its_promise_and_kept(made: Journey):
    app = EdgeqApp(made)
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        said = characters(app)
        assert "[x] model-rtn-int4-g32-onnx" in said
        assert "8 tokens after a prompt of 4: how fast it writes" in said
        assert "prompts of 8 and 16 tokens" in said
        assert f"edgeq bench {made.artifacts[0]}" in str(app.screen.query_one("#command").render())
        await pilot.press("s")
        await until(pilot, lambda: state(app) == "after", 120)
        said = characters(app)
        assert "It writes" in said and "promised" in said and "decode 8" in said and "prefill 16" in said
        assert "Measured just now" in guide(app)
        assert app.road.job("bench").kind == "bench"
        await pilot.press("n")
        await until(pilot, lambda: app.step == "chat")
    assert len(Store().benchmarks()) == 1
    assert "bench" in journeys()[0].jobs


async def test_what_was_measured_before_is_shown_without_measuring_again(made: Journey):
    first = EdgeqApp(made)
    async with first.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        await pilot.press("s")
        await until(pilot, lambda: state(first) == "after", 120)
    again = EdgeqApp(made)  # another journey: it knows no job
    async with again.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: state(again) == "after")
        assert "a to measure again" in guide(again) and "n to chat" in guide(again)
        await pilot.press("a")
        await until(pilot, lambda: state(again) == "before")
        assert "tokens/s just now" in characters(again)
    assert len(all_jobs()) == 1


async def test_what_is_measured_can_be_changed(made: Journey):
    app = EdgeqApp(made)
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        assert app.screen.query_one("#w-prompt_tokens", Input).value == "8,16"
        await pilot.press("o")
        await until(pilot, lambda: "Lengths of the prompts" in characters(app))
        app.screen.query_one("#w-prompt_tokens", Input).value = "4"
        app.screen.query_one("#w-tokens", Input).value = "12"
        app.screen.query_one("#w-threads", Input).value = "none"
        await until(pilot, lambda: app.screen.query_one("#w-threads").has_class("wrong"))
        await until(pilot, lambda: "not a number: 'none'" in characters(app))
        app.screen.query_one("#w-threads", Input).value = ""
        await until(pilot, lambda: not app.screen.query_one("#w-threads").has_class("wrong"))
        assert "12 tokens after a prompt of 12" in characters(app) and "prompts of 4 tokens" in characters(app)
        command = str(app.screen.query_one("#command").render())
        assert command.endswith("--prompt-tokens 4 --tokens 12 --reps 2")
        await pilot.press("escape", "s")
        await until(pilot, lambda: state(app) == "after", 120)
    (found,) = Store().benchmarks()
    assert [p.tokens for p in found.prefill] == [4] and found.decode.tokens == 12
    assert len(found.decode.tps.runs) == 2


async def test_two_are_measured_side_by_side(made: Journey):
    second = Path(made.artifacts[0]).with_name("model-rtn-int4-g32-other")
    shutil.copytree(made.artifacts[0], second, dirs_exist_ok=True)
    app = EdgeqApp(replace(made, artifacts=(*made.artifacts, str(second))))
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        assert "them side by side" in guide(app)
        await pilot.press("space")
        await until(pilot, lambda: app.screen._benching.chosen == (str(second),))
        await pilot.press("space")
        await until(pilot, lambda: len(app.screen._benching.chosen) == 2)
        await pilot.press("s")
        await until(pilot, lambda: state(app) == "after", 120)
        said = characters(app)
        assert "onnx" in said and "other" in said and "×" in said
        assert "rounds of turns" in said
        assert app.road.job("bench").kind == "compare"
    assert len(Store().benchmarks()) == 2
    found = EdgeqApp(journeys()[0])
    async with found.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: state(found) == "after")
        assert "rounds of turns" in characters(found), "the comparison is found again, not two measurements"
    shutil.rmtree(second)


async def test_an_artifact_beside_the_checkpoint_is_offered(made: Journey):
    second = Path(made.artifacts[0]).with_name("model-beside")
    shutil.copytree(made.artifacts[0], second, dirs_exist_ok=True)
    app = EdgeqApp(made)
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        assert "[ ] model-beside" in characters(app)
        assert app.screen._benching.chosen == made.artifacts
    shutil.rmtree(second)


@posix
async def test_a_run_goes_on_without_its_window_and_another_one_finds_and_cancels_it(made: Journey, monkeypatch):
    work(monkeypatch, LONG)
    first = EdgeqApp(made)
    async with first.run_test() as pilot:
        await ready(pilot)
        await pilot.press("s")
        await until(pilot, lambda: state(first) == "work" and " now" in gauge_of(first), 120)
        assert "promised" in gauge_of(first) or "ceiling" in gauge_of(first)
        await pilot.press("1")
        await until(pilot, lambda: first.step == "device")
        await pilot.press("6")
        await until(pilot, lambda: first.step == "bench" and state(first) == "work")
    second = EdgeqApp(journeys()[0])
    async with second.run_test() as pilot:
        await until(pilot, lambda: state(second) == "work")
        job = second.road.job("bench")
        pause(job)  # as the list of runs does it
        await until(pilot, lambda: state(second) == "paused")
        await pilot.press("p")
        await until(pilot, lambda: state(second) == "work")
        await pilot.press("c")
        await until(pilot, lambda: state(second) == "before")
        assert "Cancelled" in problem(second)
    assert [j.id for j in all_jobs()] == [job.id]
    assert Store().benchmarks() == []
    third = EdgeqApp(journeys()[0])
    async with third.run_test() as pilot:
        await until(pilot, lambda: state(third) == "before")
        assert problem(third) == "", "a cancelled run is no news"


async def test_a_run_that_fails_says_why_where_it_happens(made: Journey):
    broken = Path(made.artifacts[0]).with_name("broken-onnx")
    shutil.copytree(made.artifacts[0], broken, dirs_exist_ok=True)
    model = broken / "model.onnx"
    model.write_bytes(bytes(model.stat().st_size))
    app = EdgeqApp(replace(made, artifacts=(str(broken),)))
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        await pilot.press("s")
        await until(pilot, lambda: "onnxruntime cannot load the model" in problem(app), 120)
        assert state(app) == "before"
    shutil.rmtree(broken)


async def test_an_artifact_that_is_gone_can_not_be_measured_and_says_the_way_out(tmp_path):
    app = EdgeqApp(replace(journey(tmp_path, "some/model"), step="bench", artifacts=(str(tmp_path / "gone"),)))
    async with app.run_test() as pilot:
        await until(pilot, lambda: state(app) == "unable")
        assert "press 5" in guide(app)
        await until(pilot, lambda: "No such artifact folder" in characters(app))
        await pilot.press("s")
        await pilot.pause(0.3)
    assert all_jobs() == []


async def test_a_runtime_that_is_missing_is_said_with_what_installs_it(made: Journey, monkeypatch):
    class Absent:
        def missing(self) -> str:
            return "onnxruntime, tokenizers"

    monkeypatch.setattr("edgeq.measure.compare.runtime", lambda _: Absent())
    app = EdgeqApp(made)
    async with app.run_test() as pilot:
        await until(pilot, lambda: state(app) == "unable")
        await until(pilot, lambda: "pip install onnxruntime tokenizers" in characters(app))


async def test_before_there_is_an_artifact_it_says_what_comes_first(tmp_path):
    app = EdgeqApp(replace(journey(tmp_path, "some/model"), step="bench"))
    async with app.run_test() as pilot:
        await until(pilot, lambda: "Export: press 5" in guide(app))


# Widgets.


@pytest.mark.parametrize("width", [20, 40, 76, 196])
@pytest.mark.parametrize("now", [None, 0.0, 3.0, 43.1, 80.0])
def test_the_gauge_says_all_in_characters_and_stays_within_its_width(width, now):
    lines = gauge(width, now, [("promised", 40.2), ("ceiling", 55.0)]).plain.splitlines()
    assert all(len(line) <= width for line in lines[1:])
    assert len(lines) <= 4
    text = "\n".join(lines)
    assert "promised 40.2" in text and "ceiling 55.0" in text
    assert ("waiting" in text) if now is None else (f"{now:.1f} now" in text)
    bar = lines[1]
    assert len(bar) == width
    if width > 30 and now == 43.1:
        at = {name: next(line.index(mark) for line in lines if name in line) for name, mark in (("now", "▼"),)}
        assert bar[at["now"] - 1] == "█" and bar[at["now"] + 1] == "░"


async def test_where_there_is_room_each_of_two_has_its_gauge(monkeypatch):
    both = (choice("onnx", "onnxruntime"), choice("gguf", "llamacpp"))
    seen = at_work()
    prepared = Benching(both, tuple(c.path for c in both), job=seen.job)
    monkeypatch.setattr("edgeq.jobs.look", lambda job: seen)
    monkeypatch.setattr(Benching, "speeds", lambda self: [(0, 130.0), (0, 131.0), (1, 90.0)])
    monkeypatch.setattr("edgeq.tui.benching.benching_of", lambda _: prepared)
    app = EdgeqApp(replace(journey(Path("/home/ada"), MODEL), step="bench", checkpoint=MADE, artifacts=(ONNX,)))
    async with app.run_test(size=(200, 60)) as pilot:
        await until(pilot, lambda: "131.0 now" in characters(app) and "115.4 now" in characters(app))
        await pilot.resize_terminal(120, 40)
        await until(pilot, lambda: "131.0 now" not in characters(app) and "115.4 now" in characters(app))


def test_speeds_are_columns_from_zero():
    assert columns([10, 20, 15], 2) == [" █▄", "███"]
    assert columns([], 1) == [""]
    assert columns([0, 0], 1) == ["  "]


# Pictures.

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
MADE = "/home/ada/SmolLM2-135M-Instruct-gptq-int4-g32"
ONNX = f"{MADE}-onnx"
PROMISE = Promise(136.0, 900.0, 512, 271 << 20, 264.0, "learned, 3 measurements of onnxruntime/cpu")
LIKE = Likeness("checkpoint", 0.0038, 0.968, 586)
NOW = "2026-11-26T12:00:00+00:00"


def figures(name: str, runtime: str, speed: float, spread: float = 0.02) -> Benchmark:
    runs = Samples.of((speed * (1 - spread), speed, speed, speed, speed * (1 + spread)))
    prefills = tuple(
        Prefill(n, Samples.of(7 * v for v in runs.runs), Samples.of(n / (7 * v) + 0.01 for v in runs.runs))
        for n in (32, 128, 512)
    )
    return Benchmark(
        "2026-11-24T10:00:00+00:00", "Test processor / 4 threads / 16 GiB", f"{runtime}/cpu", MODEL, "llama",
        "gptq-int4-g32", f"{MADE}-{name}", 107_900_000, 4, 0.21, 0.42, prefills, Decode(128, 32, runs),
        20_000_000, 200_000_000, 278_000_000, 0.01, 0.02, PROMISE,
    )  # fmt: skip


def choice(name: str, runtime: str, known: Benchmark | None = None) -> Choice:
    files = {"model.onnx": {"bytes": 107_900_000}}
    path = f"{MADE}-{name}"
    return Choice(path, Artifact(Path(path), runtime, MODEL, "gptq-int4-g32", {}, files), promise=PROMISE, known=known)


MISSING = replace(
    choice("openvino", "openvino"), why="its runtime openvino needs openvino", hint="pip install openvino"
)


def at_work() -> Look:
    request = {"artifacts": [ONNX, f"{MADE}-gguf"], "workload": {}}
    job = Job("20260101-000000-compare-ab12", "compare", request, "Benchmark: onnx, gguf", NOW)
    so_far = [
        {"artifact": a, "phase": p, "tokens": n, "tokens_per_s": v, "reps": 2}
        for a, p, n, v in ((0, "prefill", 512, 902.0), (0, "decode", 128, 129.6), (1, "prefill", 512, 811.5))
    ]
    more = {"artifact": 1, "name": "gguf", "phase": "decode", "tokens": 128, "rep": 1, "reps": 2, "whole": False}
    more |= {"tokens_per_s": 115.4, "decode_tps": 115.4, "so_far": so_far, "left_s": 64.0}
    return Look(job, "running", Event(41.0, 20, 88, "gguf: writing 128 tokens, 1 of 2", more), 200_000_000)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("what", ["before", "work", "after", "sides"])
async def test_pictures(what, size, theme, monkeypatch):
    both = (choice("onnx", "onnxruntime"), choice("gguf", "llamacpp"))
    prepared = Benching((*both, MISSING), tuple(c.path for c in both))
    if what == "work":
        seen = at_work()
        prepared = replace(prepared, job=seen.job)
        monkeypatch.setattr("edgeq.jobs.look", lambda job: seen)
        monkeypatch.setattr(
            Benching, "speeds", lambda self: [(0, 129.6), *((1, 90.0 + 9 * (i % 5)) for i in range(200))]
        )
    if what == "after":
        slow = replace(figures("onnx", "onnxruntime", 102.3), warnings=("other programs took 31% of the machine",))
        found = beside([slow], [LIKE])
        prepared = replace(prepared, choices=(choice("onnx", "onnxruntime", slow),), chosen=(ONNX,))
        monkeypatch.setattr(Benching, "comparison", lambda self, result=None: found)
    if what == "sides":
        two = [figures("onnx", "onnxruntime", 129.3), figures("gguf", "llamacpp", 155.1)]
        pair = beside(two, [LIKE, replace(LIKE, mean_kl=0.0021)], (2, 2, 1))
        monkeypatch.setattr(Benching, "comparison", lambda self, result=None: pair)
    monkeypatch.setattr("edgeq.measure.bench_words.ago", lambda date, now=None: "2 days ago")
    monkeypatch.setattr("edgeq.tui.benching.benching_of", lambda _: prepared)
    monkeypatch.setattr("edgeq.journey.save", lambda _: None)
    here = replace(journey(Path("/home/ada"), MODEL), step="bench", checkpoint=MADE, artifacts=(ONNX,))
    app = EdgeqApp(here)
    async with app.run_test(size=size) as pilot:
        app.theme = theme
        good = {"before": "Press s", "work": "Measuring", "after": "Measured", "sides": "Measured"}[what]
        await until(pilot, lambda: guide(app).startswith(good))
        await check(pilot, f"bench-{what}-{size[0]}x{size[1]}-{theme.removeprefix('edgeq-')}")
