"""The step model: the list and its search, a model at a glance, the choice, and what can't be taken."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from making_data import guide, problem, until, write_model
from snapshot import SIZES, THEMES, characters, check
from textual.widgets import Input

from edgeq.device import load_device
from edgeq.errors import EdgeqError
from edgeq.journey import Journey, begin, journeys, save
from edgeq.tui.app import EdgeqApp
from edgeq.tui.choosing import Entry
from edgeq.tui.widgets.model_list import ModelList


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("edgeq.model.found.hub_cache", lambda: tmp_path / "no-cache")


def at_model(folder: Path, device: str = "rpi-5") -> Journey:
    """A device of the catalog: nothing is measured."""
    return replace(begin(folder).with_device(device), step="model")


def models(app: EdgeqApp) -> ModelList:
    return app.screen.query_one(ModelList)


def chosen(app: EdgeqApp) -> str:
    entry = models(app).chosen
    return "" if entry is None else entry.ref


async def ready(pilot) -> None:
    await until(pilot, lambda: guide(pilot.app).startswith("Choose with"))
    await until(pilot, lambda: chosen(pilot.app) != "")


async def type_in(pilot, text: str) -> None:
    await pilot.press("slash")
    pilot.app.screen.query_one(Input).value = text
    await pilot.pause()


async def test_a_model_nearby_is_listed_looked_at_and_chosen(tmp_path):
    model = write_model(tmp_path / "out" / "mine")
    app = EdgeqApp(at_model(tmp_path / "out"))
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        assert "On this machine" in characters(app)
        assert chosen(app) == str(model)
        await until(pilot, lambda: "on this machine" in characters(app) and "llama, 4 layers" in characters(app))
        for part in ("bits", "weights", "✓ fits", "tok/s", "KV cache"):
            assert part in characters(app)
        await pilot.press("enter")
        await until(pilot, lambda: app.step == "plan")
    assert journeys()[0].model == str(model)


async def test_known_models_are_marked_and_the_glance_follows_the_cursor(tmp_path):
    app = EdgeqApp(at_model(tmp_path))
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        await until(pilot, lambda: models(app).marks.get("llama-3.1-70b", (True, ""))[0] is False, 120)
        await until(pilot, lambda: models(app).marks.get("qwen3-0.6b") == (True, "596M"), 120)  # they come bit by bit
        await type_in(pilot, "llama-3.1-70b")
        await until(pilot, lambda: "✗ llama-3.1-70b" in characters(app))
        await until(pilot, lambda: "Too big for this device" in characters(app))
        await type_in(pilot, "qwen3-0.6b")
        await until(pilot, lambda: "596M parameters" in characters(app))
        assert "✓ fits" in characters(app)


async def test_search_narrows_and_escape_leads_back(tmp_path):
    app = EdgeqApp(at_model(tmp_path))
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        await type_in(pilot, "gemma 27b")
        await until(pilot, lambda: "gemma-2-27b" in characters(app))
        assert "qwen" not in characters(app)
        assert app.screen.check_action("leave", ()) is True
        await pilot.press("down", "escape")
        assert app.screen.focused is models(app)
        assert chosen(app) == "gemma-3-27b"


async def test_earlier_choices_come_first(tmp_path):
    save(begin(tmp_path).with_model("qwen3-4b"))
    app = EdgeqApp(at_model(tmp_path))
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        assert "Chosen before" in characters(app)
        assert chosen(app) == "qwen3-4b"
        await until(pilot, lambda: "✓ qwen3-4b" in characters(app))


async def test_a_size_is_a_model_too(tmp_path):
    app = EdgeqApp(at_model(tmp_path))
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        await type_in(pilot, "70B")
        while chosen(app) != "70B":
            await pilot.press("down")
        await pilot.press("enter")
        await until(pilot, lambda: app.step == "plan")
    assert journeys()[0].model == "70B"


async def test_a_path_that_is_typed_is_taken(tmp_path):
    model = write_model(tmp_path / "elsewhere" / ".hidden" / "tiny")
    app = EdgeqApp(at_model(tmp_path / "out"))
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        await type_in(pilot, "elsewhere/.hidden/tiny")
        await until(pilot, lambda: "As you typed it" in characters(app))
        await pilot.press("enter")
        await until(pilot, lambda: app.step == "plan")
    assert journeys()[0].model == str(model), "kept whole: the next window has another folder"


@pytest.mark.parametrize("wrong", ["no/such/model", "nowhere/model"])
async def test_what_is_not_there_is_said_where_it_happens(tmp_path, wrong):
    app = EdgeqApp(at_model(tmp_path))
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        await type_in(pilot, wrong)
        await until(pilot, lambda: chosen(app) == wrong)
        await pilot.press("enter")
        await until(pilot, lambda: problem(app) != "")
        assert "choose another" in guide(app)
        assert app.step == "model"
        app.screen.query_one(Input).value = "7B"
        await until(pilot, lambda: problem(app) == "")
    assert journeys() == []


@pytest.mark.parametrize("size", SIZES)
async def test_a_model_with_its_own_code_is_only_planned(tmp_path, size):
    model = write_model(tmp_path / "out" / "own")
    config = json.loads((model / "config.json").read_text())
    config |= {"model_type": "brandnew", "auto_map": {"AutoModel": "modeling_brandnew.Brandnew"}}
    (model / "config.json").write_text(json.dumps(config))
    app = EdgeqApp(at_model(tmp_path / "out"))
    async with app.run_test(size=size) as pilot:
        await ready(pilot)
        await until(pilot, lambda: "Only to plan" in characters(app))
        await pilot.press("enter")
        await until(pilot, lambda: app.step == "plan" and "not make it" in guide(app))
        await pilot.press("enter")
        await until(pilot, lambda: problem(app) != "")
        assert "does not know how brandnew computes" in problem(app)
        assert app.step == "plan"


async def test_a_damaged_folder_is_said_beside_the_list(tmp_path):
    model = write_model(tmp_path / "out" / "broken")
    config = json.loads((model / "config.json").read_text()) | {"hidden_size": 65}
    (model / "config.json").write_text(json.dumps(config))
    app = EdgeqApp(at_model(tmp_path / "out"))
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        await until(pilot, lambda: "! " in characters(app))
        await pilot.press("enter")
        await until(pilot, lambda: problem(app) != "")


async def test_offline_the_hub_is_said_to_be_out_of_reach(tmp_path):
    app = EdgeqApp(at_model(tmp_path))
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        await type_in(pilot, "qwen3")
        await until(pilot, lambda: "The hub is out of reach" in characters(app))
        assert "qwen3-8b" in characters(app)


async def test_the_hub_s_answer_is_listed_below(tmp_path, monkeypatch):
    found = [Entry("hub", "org/tiny-qwen", "org/tiny-qwen", "12 downloads"), Entry("hub", "org/gated", "org/gated")]
    monkeypatch.setattr("edgeq.tui.choosing.on_hub", lambda text: found)
    app = EdgeqApp(at_model(tmp_path))
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        await type_in(pilot, "tiny-qwen")
        await until(pilot, lambda: "On the Hugging Face hub" in characters(app))
        assert "org/tiny-qwen" in characters(app)
        assert "12 downloads" in characters(app)


async def test_a_gated_model_says_how_to_get_it(tmp_path, monkeypatch):
    def gated(ref: str) -> None:
        raise EdgeqError("org/gated is gated", hint="Accept its terms, then run `hf auth login`")

    monkeypatch.setattr("edgeq.model.read.read_model", gated)
    app = EdgeqApp(at_model(tmp_path))
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        await type_in(pilot, "org/gated")
        await until(pilot, lambda: "hf auth login" in characters(app))
        await pilot.press("enter")
        await until(pilot, lambda: "is gated" in problem(app) and "hf auth login" in problem(app))


async def test_the_demo_s_model_is_fetched_when_it_is_taken(tmp_path, monkeypatch):
    from edgeq.demo.source import Source

    model, told = write_model(tmp_path / ".far" / "demo"), []

    def fetch(say) -> Source:
        say("downloading 93 MB")
        told.append(True)
        return Source(model, "a test")

    monkeypatch.setattr("edgeq.demo.source.demo_model", fetch)
    app = EdgeqApp(at_model(tmp_path))
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        assert chosen(app) == "demo"
        await pilot.press("enter")
        await until(pilot, lambda: app.step == "plan")
    assert (journeys()[0].model, told) == (str(model), [True])


# Pictures.

HERE = [
    Entry("recent", "HuggingFaceTB/SmolLM2-135M-Instruct", "SmolLM2-135M-Instruct", local=True),
    Entry("here", "/home/ada/models/long.gguf", "a-model-with-a-long-name-Q4_K_M.gguf", "4.92 GB", True),
    Entry("here", "/home/ada/models/llama-3.2-3b-it", "llama-3.2-3b-it", local=True),
    *(Entry("known", name, name) for name in ("llama-3.2-3b", "qwen3-8b", "llama-3.1-70b")),
    *(Entry("sizes", size, size, f"as {name}") for size, name in (("3B", "qwen2.5-3b"), ("7B", "qwen2.5-7b"))),
]  # fmt: skip
SIZES_OF = ("135M", "8.03B", "3.21B", "3.21B", "8.19B", "70.6B", "3.09B", "7.62B")
MARKS = {e.ref: (size != "70.6B", size) for e, size in zip(HERE, SIZES_OF, strict=True)}
ROWS = [
    ("4", "92 MB", "✓ fits", "266 tok/s"),
    ("8", "147 MB", "✓ fits", "207 tok/s"),
    ("16", "271 MB", "✓ fits", "112 tok/s"),
]
SENTENCE = "At 4 bits it takes 380 MB of the 15.5 GB that are free, and writes at most 266 tok/s."
FACTS = [("size", "135M parameters"), ("shape", "llama, 30 layers"), ("made for", "8,192 tokens")]


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("what", ["list", "search", "wrong"])
async def test_pictures(what, size, theme, monkeypatch):
    monkeypatch.setattr("edgeq.tui.choosing.entries_of", lambda _: HERE)
    monkeypatch.setattr("edgeq.tui.choosing.marks_of", lambda device, refs: {r: MARKS[r] for r in refs})
    monkeypatch.setattr("edgeq.plan.glance.rows", lambda _: ROWS)
    monkeypatch.setattr("edgeq.plan.glance.facts", lambda _: FACTS)
    monkeypatch.setattr("edgeq.plan.glance.sentence", lambda _: SENTENCE)
    laptop = load_device("ddr4-laptop")
    monkeypatch.setattr("edgeq.tui.road.Road.device", lambda self, refresh=False: laptop)

    def looked(device, entry):
        if what == "wrong":
            raise EdgeqError("no such file or folder", where=entry.ref, hint="Give a folder or a .gguf file")
        from edgeq.plan import Request
        from edgeq.plan.glance import glance

        return glance(device, read_model("smollm2-135m"), Request(), bits=())

    from edgeq.model.read import read_model

    monkeypatch.setattr("edgeq.tui.choosing.glance_of", looked)
    monkeypatch.setattr("edgeq.journey.save", lambda _: None)
    app = EdgeqApp(at_model(Path("/home/ada"), "auto"))
    async with app.run_test(size=size) as pilot:
        app.theme = theme
        await ready(pilot)
        if what != "list":
            app.screen.query_one(Input).cursor_blink = False
            await type_in(pilot, "smol" if what == "search" else "./missing.gguf")
        if what == "wrong":
            await until(pilot, lambda: chosen(app) == "./missing.gguf")
            await pilot.press("enter")
            await until(pilot, lambda: problem(app) != "")
        await check(pilot, f"model-{what}-{size[0]}x{size[1]}-{theme.removeprefix('edgeq-')}")
