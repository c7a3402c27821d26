"""The step export, for real: a tiny checkpoint goes to runtimes, is proved, refused, cancelled and found again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from making_data import guide, journey, problem, until, write_model
from snapshot import SIZES, THEMES, characters, check
from textual.widgets import Input, OptionList, Select

from edgeq.artifact import read_artifact
from edgeq.jobs import all_jobs, cancel
from edgeq.jobs.job import Event, Job, Look
from edgeq.journey import Journey, journeys
from edgeq.model.weights import open_source
from edgeq.quantize.engine import quantize
from edgeq.recipe import Recipe
from edgeq.tui.app import EdgeqApp
from edgeq.tui.exporting import Exporting, Way


@pytest.fixture
def made(tmp_path: Path) -> Any:
    """A journey that has its checkpoint."""
    model = write_model(tmp_path / "model", layers=2)
    out = tmp_path / "out" / "model-rtn-int4-g32"
    quantize(open_source(str(model)), Recipe(str(model)), out, threads=1)
    yield replace(journey(tmp_path / "out", model), step="export", checkpoint=str(out))
    for job in all_jobs():
        cancel(job)


def state(app: EdgeqApp) -> str:
    return app.screen._state


async def ready(pilot) -> None:
    await until(pilot, lambda: state(pilot.app) not in ("thinking", "work", "paused"))


async def choose(pilot, name: str) -> None:
    ways = pilot.app.screen.query_one("#list", OptionList)
    ways.highlighted = ways.get_option_index(name)
    await until(pilot, lambda: pilot.app.screen._exporting.to == name)


async def test_the_planned_way_is_at_the_top_and_leads_to_a_proved_artifact(made: Journey):
    app = EdgeqApp(made)
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        assert "✓ onnx" in characters(app)
        assert "(planned)" in characters(app)
        assert app.screen._exporting.to == "onnx"
        await pilot.press("s")
        await until(pilot, lambda: state(app) == "after", 120)
        await until(pilot, lambda: "verified" in characters(app))
        assert "its likeliest word is the" in characters(app)
        assert app.road.journey.artifacts == (f"{made.checkpoint}-onnx",)
        assert read_artifact(f"{made.checkpoint}-onnx").verify["verdict"] == "pass"
        await pilot.press("n")
        await until(pilot, lambda: app.step == "bench")
    assert journeys()[0].artifacts == (f"{made.checkpoint}-onnx",)


async def test_several_artifacts_of_one_checkpoint(made: Journey):
    app = EdgeqApp(made)
    async with app.run_test(size=(120, 40)) as pilot:
        for name in ("gptq", "compressed-tensors"):
            await ready(pilot)
            await choose(pilot, name)
            await until(pilot, lambda: guide(app).startswith("Press s"))
            await pilot.press("s")
            await until(pilot, lambda: state(app) == "after", 60)
            assert "each number as the checkpoint has it" in characters(app)
            await pilot.press("a")
        assert [Path(a).name for a in app.road.journey.artifacts] == [
            "model-rtn-int4-g32-gptq",
            "model-rtn-int4-g32-compressed-tensors",
        ]


async def test_what_an_exporter_refuses_is_said_with_the_way_out(made: Journey):
    app = EdgeqApp(made)
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        assert "✗ gguf" in characters(app)
        await choose(pilot, "gguf")
        await until(pilot, lambda: state(app) == "refused")
        assert "no 8-bit blocks with zero points" in str(app.screen.query_one("#why").render())
        assert "press 4" in guide(app)
        await pilot.press("s")
        await pilot.pause(0.3)
    assert all_jobs() == []


async def test_options_are_the_exporter_s_own(made: Journey):
    app = EdgeqApp(made)
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        await until(pilot, lambda: len(app.screen.query("#x-dialect")) == 1)
        app.screen.query_one("#x-dialect", Select).value = "standard"
        app.screen.query_one("#x-context", Input).value = "64"
        await until(pilot, lambda: app.screen._exporting.options == {"dialect": "standard", "context": 64})
        command = str(app.screen.query_one("#command").render())
        assert "--to onnx --context 64 --dialect standard -o" in command
        app.screen.query_one("#x-dialect", Select).value = "default"
        await until(pilot, lambda: app.screen._exporting.options == {"context": 64})
        await choose(pilot, "openvino")
        await until(pilot, lambda: len(app.screen.query("#x-device")) == 1)
        assert not app.screen.query("#x-dialect")
        assert app.screen._exporting.options == {}


async def test_the_option_under_the_cursor_is_explained_and_what_there_is_is_shown_beside(made: Journey):
    app = EdgeqApp(made)
    async with app.run_test(size=(200, 60)) as pilot:
        await ready(pilot)
        await until(pilot, lambda: len(app.screen.query("#x-dialect")) == 1)
        assert "The checkpoint" in characters(app) and "bits a weight" in characters(app)
        first = app.screen.query("#form Select, #form Input").first()
        await pilot.press("o")
        await until(pilot, lambda: first.has_focus)
        app.screen.query_one("#x-dialect", Select).focus()
        await until(pilot, lambda: "contrib: onnxruntime's fused operators" in characters(app))
        app.screen.query_one("#x-out", Input).focus()
        await until(pilot, lambda: "Where the artifact will lie" in characters(app))
        await choose(pilot, "gptq")
        app.screen.set_focus(None)
        await until(pilot, lambda: guide(app).startswith("Press s"))
        await pilot.press("s")
        await until(pilot, lambda: state(app) == "after", 120)
        await until(pilot, lambda: "model.safetensors" in characters(app) and "all together" in characters(app))
        await pilot.press("a")
        await choose(pilot, "gptq")
        await until(pilot, lambda: "What lies in the folder" in characters(app))


async def test_options_that_do_not_go_together_are_told_by_the_exporter(made: Journey):
    app = EdgeqApp(made)
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        await until(pilot, lambda: len(app.screen.query("#x-dialect")) == 1)
        app.screen.query_one("#x-dialect", Select).value = "standard"
        app.screen.query_one("#x-kv_dtype", Select).value = "int8"
        await until(pilot, lambda: len(app.screen._exporting.options) == 2)
        await pilot.press("s")
        await until(pilot, lambda: "standard operators have no KV cache of int8" in problem(app))
        assert app.screen._exporting.options == {"dialect": "standard", "kv_dtype": "int8"}, "they can be mended there"
        app.screen.query_one("#x-kv_dtype", Select).value = "default"
        await until(pilot, lambda: state(app) == "before" and problem(app) == "")


async def test_an_artifact_that_is_there_can_be_used(made: Journey):
    app = EdgeqApp(made)
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        await choose(pilot, "gptq")
        await pilot.press("s")
        await until(pilot, lambda: state(app) == "after", 60)
    again = EdgeqApp(made)
    async with again.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        await choose(pilot, "gptq")
        await until(pilot, lambda: "press u" in guide(again))
        await pilot.press("u")
        await until(pilot, lambda: state(again) == "after")
        assert again.road.journey.artifacts == (f"{made.checkpoint}-gptq",)


async def test_an_artifact_that_was_found_wrong_is_not_offered(made: Journey):
    app = EdgeqApp(made)
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        await choose(pilot, "gptq")
        await pilot.press("s")
        await until(pilot, lambda: state(app) == "after", 60)
        manifest = Path(f"{made.checkpoint}-gptq") / "edgeq.json"
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"verify": {"verdict": "fail"}}))
        await pilot.press("a")
        await until(pilot, lambda: "r to replace it" in guide(app))
        await pilot.press("r")
        await until(pilot, lambda: state(app) == "after", 60)


async def test_a_checkpoint_that_is_gone_is_an_error_with_a_way_out(tmp_path):
    app = EdgeqApp(replace(journey(tmp_path, "some/model"), step="export", checkpoint=str(tmp_path / "gone")))
    async with app.run_test() as pilot:
        await until(pilot, lambda: "no such checkpoint" in problem(app))
        assert "Press 4 to make one" in problem(app)


async def test_before_there_is_a_checkpoint_it_says_what_comes_first(tmp_path):
    app = EdgeqApp(replace(journey(tmp_path, "some/model"), step="export"))
    async with app.run_test() as pilot:
        await until(pilot, lambda: "Quantize: press 4" in guide(app))


# Pictures.

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
MADE = "/home/ada/SmolLM2-135M-Instruct-gptq-int4-g32"
ONNX = f"{MADE}-onnx"
REFUSAL = "llama.cpp stores minima, not integer zero points; quantize with --grid affine, q4_k, ... or --symmetric"
WAYS = (
    Way("onnx", "onnxruntime: any processor, phones too", (), ("dialect", "kv_dtype", "context"),
        {"dialect": ["contrib", "standard"], "kv_dtype": ["f32", "int8"]}, True),
    Way("openvino", "OpenVINO: Intel's processors, graphics and NPUs", (), ("device",), {"device": ["cpu", "gpu"]}),
    Way("gguf", "llama.cpp and Ollama: nearly any machine", (REFUSAL,), (), {}),
)  # fmt: skip


SOURCE = (
    ("checkpoint", MADE),
    ("scheme", "gptq-int4-g32"),
    ("size", "96.1 MB, 5.50 bits a weight"),
    ("took", "3 min 12 s (predicted 2 min 42 s)"),
    ("memory at the peak", "431 MB (predicted 464 MB)"),
)
FILES = [
    ("model.onnx.data", "105 MB"),
    ("tokenizer.json", "2.1 MB"),
    ("model.onnx", "0.4 MB"),
    ("genai_config.json", "2 KB"),
    ("tokenizer_config.json", "1 KB"),
    ("all together", "108 MB"),
]


def at_work() -> Look:
    request = {"checkpoint": MADE, "to": "onnx", "out": ONNX, "options": {}}
    job = Job(
        "20260101-000000-export-ab12",
        "export",
        request,
        "Export: SmolLM2-135M-Instruct-gptq-int4-g32 to onnx",
        "2026-01-01T00:00:00+00:00",
    )
    return Look(job, "running", Event(9.0, 3, 6, "comparing", part_s=4.0, part_done=1), 900_000_000)


def done(job: Job) -> Look:
    nats = {"tokens": 586, "mean_kl": 0.0038, "p99_kl": 0.05, "max_kl": 0.2, "top1": 0.968, "top5": 0.99}
    limits = {"mean_kl": 0.05, "top1": 0.85, "random_kl": 0.6}
    proof = {"verdict": "pass", "reasons": [], "path": "int8", "limits": limits, "text": nats, "random": nats}
    proof |= {"steps": None, "original": None, "date": "2026-01-01T00:00:00+00:00"}
    result = {"artifact": ONNX, "runtime": "onnxruntime", "bytes": 107_900_000, "tensors": 0}
    return Look(job, "done", None, result=result | {"verification": proof, "unchecked": "", "notes": []})


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("what", ["before", "refused", "work", "after"])
async def test_pictures(what, size, theme, monkeypatch):
    prepared = Exporting(MADE, WAYS, "onnx", Path(ONNX), source=SOURCE)
    monkeypatch.setattr("edgeq.tui.exporting.files_of", lambda _: FILES if what == "after" else [])
    here = replace(journey(Path("/home/ada"), MODEL), step="export", checkpoint=MADE)
    if what in ("work", "after"):
        seen = at_work()
        prepared = replace(prepared, job=seen.job)
        monkeypatch.setattr("edgeq.jobs.look", lambda job: seen if what == "work" else done(job))
    monkeypatch.setattr("edgeq.tui.exporting.exporting_of", lambda _: prepared)
    monkeypatch.setattr("edgeq.journey.save", lambda _: None)
    app = EdgeqApp(here)
    async with app.run_test(size=size) as pilot:
        app.theme = theme
        good = {"before": "Press s", "refused": "Press s", "work": "Exporting", "after": "Proved"}[what]
        await until(pilot, lambda: guide(app).startswith(good))
        if what == "refused":
            await choose(pilot, "gguf")
        await check(pilot, f"export-{what}-{size[0]}x{size[1]}-{theme.removeprefix('edgeq-')}")
