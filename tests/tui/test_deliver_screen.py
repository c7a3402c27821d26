"""The step deliver: a real tiny artifact, its programs, its report, and what happens when something is amiss."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from making_data import guide, journey, problem, until, write_model
from snapshot import SIZES, THEMES, characters, check
from textual.widgets import Input, Select, Tabs

from edgeq.artifact import Artifact
from edgeq.checkpoint.open import open_weights
from edgeq.deliver import Delivery
from edgeq.deliver.ways import ways_of
from edgeq.journey import Journey
from edgeq.model.weights import open_source
from edgeq.quantize.engine import quantize
from edgeq.recipe import Recipe
from edgeq.registry import exporter
from edgeq.tui.app import EdgeqApp
from edgeq.tui.delivering import Delivering, Item, told


@pytest.fixture
def made(tmp_path: Path) -> Journey:
    """A journey with two artifacts of one checkpoint, the last one for onnxruntime."""
    model, out = write_model(tmp_path / "model", layers=2), tmp_path / "out"
    quantize(open_source(str(model)), Recipe(str(model)), out / "q", threads=1)
    for to in ("gptq", "onnx"):
        exporter(to).export(open_weights(out / "q"), out / f"q-{to}")
    here = replace(journey(out, model), step="deliver", checkpoint=str(out / "q"))
    return here.with_artifact(str(out / "q-gptq")).with_artifact(str(out / "q-onnx"))


async def ready(pilot) -> None:
    await until(pilot, lambda: guide(pilot.app) not in ("", "Reading the artifact ..."))


async def test_the_programs_of_the_latest_artifact_can_be_copied(made: Journey):
    app = EdgeqApp(made)
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        assert guide(app).startswith("Done: model is ready, but not proved.")
        assert "q-onnx" in characters(app) and "import edgeq" in characters(app)
        await pilot.press("y")
        assert f'edgeq.load("{made.artifacts[1]}")' in app.clipboard
        await pilot.press("right", "right")
        await until(pilot, lambda: "using var model" in characters(app))
        assert "Install: dotnet add package" in characters(app)
        await pilot.press("y")
        assert app.clipboard.startswith("using Microsoft.ML.OnnxRuntimeGenAI;")
        await pilot.press("f")
        assert app.clipboard == made.artifacts[1]


async def test_a_program_is_scrolled_while_its_tab_has_the_focus(made: Journey):
    app = EdgeqApp(made)
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        await pilot.press("right")
        await until(pilot, lambda: app.screen.query_one("#ways", Tabs).active == "genai-python")
        program = app.screen.query_one("#program")
        await until(pilot, lambda: program.max_scroll_y > 1)
        await pilot.press("down")
        await until(pilot, lambda: program.scroll_y == 1)
        await pilot.press("pagedown", "pagedown", "up")
        await until(pilot, lambda: program.scroll_y == program.max_scroll_y - 1)


async def test_among_several_artifacts_one_is_chosen(made: Journey):
    app = EdgeqApp(made)
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        assert "q-onnx (onnxruntime)" in characters(app)
        await pilot.press("a")
        await until(pilot, lambda: "vLLM" in characters(app))
        assert "q-gptq (transformers)" in characters(app)
        app.screen.query_one("#which", Select).value = 0
        await until(pilot, lambda: "import edgeq" in characters(app))


async def test_the_report_is_saved_where_one_likes(made: Journey, tmp_path: Path):
    app = EdgeqApp(made)
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        await pilot.press("w")
        place = app.screen.query_one("#to", Input)
        assert place.value == f"{made.artifacts[1]}-report.md"
        await pilot.press("enter")
        await until(pilot, lambda: guide(app).startswith("Done: the report is"))
        assert "## Recipe" in Path(f"{made.artifacts[1]}-report.md").read_text("utf-8")
        await pilot.press("w")
        place.value = str(tmp_path / "new" / "r.json")
        await pilot.press("enter")
        await until(pilot, lambda: (tmp_path / "new" / "r.json").exists())
        await until(pilot, lambda: guide(app).startswith("Done: the report is"))
        await pilot.press("w", "escape")
        await until(pilot, lambda: guide(app).startswith("Done: model"))
        assert not app.screen.query_one("#saving").display


async def test_a_place_that_can_t_be_written_is_said_and_another_can_be_given(made: Journey, tmp_path: Path):
    app = EdgeqApp(made)
    (tmp_path / "file").write_text("")
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        await pilot.press("w")
        place = app.screen.query_one("#to", Input)
        place.value = str(tmp_path / "file" / "r.md")
        await pilot.press("enter")
        await until(pilot, lambda: "Choose another place for the report" in problem(app))
        assert app.screen.query_one("#saving").display
        place.value = str(tmp_path / "r.md")
        await pilot.press("enter")
        await until(pilot, lambda: (tmp_path / "r.md").exists())
        await until(pilot, lambda: problem(app) == "")


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write everywhere")
async def test_a_read_only_folder(made: Journey, tmp_path: Path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    app = EdgeqApp(made)
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        await pilot.press("w")
        app.screen.query_one("#to", Input).value = str(closed / "r.md")
        await pilot.press("enter")
        await until(pilot, lambda: "cannot write" in problem(app))


async def test_a_file_that_changed_is_found_before_the_report_is_written(made: Journey):
    weights = Path(made.artifacts[1]) / "model.onnx.data"
    app = EdgeqApp(made)
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        weights.write_bytes(bytes(weights.stat().st_size))
        await pilot.press("w", "enter")
        await until(pilot, lambda: "damaged" in problem(app))
    assert not Path(f"{made.artifacts[1]}-report.md").exists()


async def test_a_missing_artifact_is_said_with_the_way_out(made: Journey):
    (Path(made.artifacts[1]) / "model.onnx").unlink()
    app = EdgeqApp(made)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "missing or truncated" in problem(app))
        assert "5 to export it again" in guide(app) and "a for another" in guide(app)
        assert "Copy" not in characters(app)
        await pilot.press("y", "w", "a")
        await until(pilot, lambda: guide(app).startswith("Done:") and problem(app) == "")
        await pilot.press("5")
        await until(pilot, lambda: app.step == "export")


async def test_before_there_is_an_artifact_it_says_what_comes_first(tmp_path: Path):
    app = EdgeqApp(replace(journey(tmp_path, "some/model"), step="deliver"))
    async with app.run_test() as pilot:
        await until(pilot, lambda: "Export: press 5" in guide(app))
        await pilot.press("y", "f", "w", "down")


# Pictures.

TEXT = {"tokens": 586, "mean_kl": 0.0038, "p99_kl": 0.05, "max_kl": 0.2, "top1": 0.968, "top5": 0.99}
PROOF = {
    "verdict": "pass",
    "reasons": [],
    "path": "int8",
    "text": TEXT,
    "random": TEXT,
    "steps": None,
    "original": None,
}
PROOF |= {"limits": {"mean_kl": 0.05, "top1": 0.85, "random_kl": 0.6}, "date": "2026-01-01T00:00:00+00:00"}
FAILED = {"verdict": "fail", "reasons": ["on text its mean KL divergence is 1.4 nats, the limit is 0.05"]}


def item(runtime: str, folder: str, **manifest: object) -> Item:
    """As it would be read, without a file."""
    weights = {"onnxruntime": "model.onnx.data", "llamacpp": "model.gguf"}[runtime]
    files = {weights: {"bytes": 105_000_000}, "genai_config.json": {"bytes": 900}}
    artifact = Artifact(
        Path(folder),
        runtime,
        "SmolLM2-135M-Instruct",
        "gptq-int4-g32",
        {"max_positions": 8192},
        files,
        **manifest,  # type: ignore[arg-type]
    )
    found = Delivery(artifact, Path(folder), ways_of(artifact), None, None)
    return Item(folder, found, told(found))


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("what", ["one", "several", "failed", "gone", "report"])
async def test_pictures(what, size, theme, monkeypatch):
    monkeypatch.setattr("edgeq.deliver.facts._readable", lambda _: (True, False))
    monkeypatch.setattr("edgeq.doctor.version_range", lambda name: ">=1.2")
    onnx = item("onnxruntime", "/home/ada/SmolLM2-135M-Instruct-gptq-int4-g32-onnx", verify=PROOF)
    gguf = item("llamacpp", "/home/ada/SmolLM2-135M-Instruct-gptq-int4-g32-gguf", verify=PROOF)
    gone = Item(onnx.path, problem=(f"no such artifact folder ({onnx.path})", "Press 5 to export it again"))
    items = {
        "one": (onnx,),
        "several": (gguf, onnx),
        "failed": (item("onnxruntime", onnx.path, verify=FAILED),),
        "gone": (gone,),
        "report": (onnx,),
    }[what]
    monkeypatch.setattr("edgeq.tui.delivering.delivering_of", lambda _: Delivering(items))
    monkeypatch.setattr("edgeq.journey.save", lambda _: None)
    here = replace(journey(Path("/home/ada"), "ada/x"), step="deliver", checkpoint="/home/ada/x", artifacts=("/x",))
    app = EdgeqApp(here)
    async with app.run_test(size=size) as pilot:
        app.theme = theme
        await ready(pilot)
        if what == "report":
            app.screen.query_one("#to", Input).cursor_blink = False
            await pilot.press("right", "w")
            await until(pilot, lambda: guide(app).startswith("Press enter"))
        await check(pilot, f"deliver-{what}-{size[0]}x{size[1]}-{theme.removeprefix('edgeq-')}")
