"""The step plan: what is shown and sorted, what is asked anew, what is chosen, and what can't be."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from making_data import guide, problem, until, write_model
from snapshot import SIZES, THEMES, characters, check
from textual.widgets import Input, Select

from edgeq.journey import Journey, begin, journeys
from edgeq.plan import Request
from edgeq.plan.table import cells
from edgeq.tui.app import EdgeqApp
from edgeq.tui.screens.arithmetic import ArithmeticScreen
from edgeq.tui.screens.plan import PlanScreen
from edgeq.tui.widgets.candidate_table import CandidateTable


def planning(model: Path | str = "7B", device: str = "ddr4-laptop") -> Journey:
    return replace(begin("/home/ada/edgeq-models").with_device(device).with_model(str(model)), step="plan")


def screen(app: EdgeqApp) -> PlanScreen:
    return next(s for s in app.screen_stack if isinstance(s, PlanScreen))


async def ready(pilot) -> None:
    await until(pilot, lambda: pilot.app.step == "plan" and screen(pilot.app)._looked is not None)


def table(app: EdgeqApp) -> CandidateTable:
    return screen(app).query_one(CandidateTable)


def heads(app: EdgeqApp) -> list[str]:
    return [str(c.label) for c in table(app).ordered_columns]


def looked(app: EdgeqApp) -> str:
    c = table(app).looked_at
    return "" if c is None else f"{c.scheme.name} on {c.target}"


def marks(app: EdgeqApp) -> list[str]:
    return [str(table(app).get_cell_at((n, 0))) for n in range(table(app).row_count)]


def why(app: EdgeqApp) -> str:
    return str(screen(app).query_one("#why").render())


def plan(app: EdgeqApp):
    return screen(app)._planning.plan


async def type_in(pilot, name: str, text: str) -> None:
    screen(pilot.app).query_one(f"#r-{name}", Input).value = text
    await pilot.pause()


async def test_the_advised_one_is_looked_at_first_and_told_about():
    app = EdgeqApp(planning())
    async with app.run_test() as pilot:
        await ready(pilot)
        best = plan(app).recommended
        assert looked(app) == f"{best.scheme.name} on {best.target}"
        assert marks(app)[table(app).cursor_row] == "★"
        assert "edgeq's advice" in guide(app)
        assert "best of" in characters(app)
        assert "Expected loss of quality" in why(app)
        await pilot.press("down")
        await until(pilot, lambda: "★ is advised" in guide(app))
        assert "number 2 of" in characters(app)


async def test_rows_are_sorted_by_key_and_by_a_click_and_the_look_stays():
    app = EdgeqApp(planning())
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        best = looked(app)
        for order, head in (("scheme", "scheme↑"), ("on", "on↑"), ("gb", "GB↑"), ("tps", "tok/s↓")):
            await pilot.press("o")
            await until(pilot, lambda head=head: head in heads(app))
            assert screen(app)._planning.order == order
            assert looked(app) == best
        fitting = len(plan(app).candidates)
        speeds = [c.expected.tps for c in table(app)._rows[:fitting]]
        assert speeds == sorted(speeds, reverse=True)
        assert all(not c.fits for c in table(app)._rows[fitting:])
        at = table(app)
        gb = 3 + sum(c.get_render_width(at) for c in at.ordered_columns[1:3]) + 2
        await pilot.click(at, offset=(gb, 0))
        await until(pilot, lambda: "GB↑" in heads(app))
        await pilot.click(at, offset=(gb, 0))
        await until(pilot, lambda: "GB↓" in heads(app))
        sizes = [c.footprint.total for c in at._rows[:fitting]]
        assert sizes == sorted(sizes, reverse=True)
        assert looked(app) == best


async def test_what_is_out_is_below_with_its_reason_and_can_be_hidden():
    app = EdgeqApp(planning())
    async with app.run_test() as pilot:
        await ready(pilot)
        count = table(app).row_count
        await pilot.press("ctrl+end")
        await until(pilot, lambda: "This one is out" in guide(app))
        assert "Out: needs" in why(app)
        assert marks(app).count("✗") == len(plan(app).rejected)
        await pilot.press("enter")
        await until(pilot, lambda: "Out: needs" in problem(app))
        assert app.road.journey.scheme is None
        await pilot.press("x")
        await until(pilot, lambda: table(app).row_count == count - len(plan(app).rejected))
        assert "✗" not in marks(app)
        await pilot.press("x")
        await until(pilot, lambda: table(app).row_count == count)


async def test_what_edgeq_cannot_make_is_not_chosen_and_says_what_to_take():
    app = EdgeqApp(planning())
    async with app.run_test() as pilot:
        await ready(pilot)
        table(app).move_cursor(row=marks(app).index("–"))
        await until(pilot, lambda: "can't make this one" in guide(app))
        await pilot.press("enter")
        await until(pilot, lambda: f"Take {plan(app).recommended.scheme.name}" in problem(app))
        assert app.step == "plan"
        assert app.road.journey.scheme is None
        await pilot.press("up")
        await until(pilot, lambda: problem(app) == "")


async def test_the_star_is_above_all_that_edgeq_cannot_make_and_on_none_of_it():
    asked = replace(planning("smollm2-135m"), request=Request(objective="quality"))
    app = EdgeqApp(asked)
    async with app.run_test(size=(200, 60)) as pilot:
        await ready(pilot)
        assert plan(app).candidates[0].not_yet, "by its figures it would be first"
        said = marks(app)
        assert said.index("★") < said.index("–")
        table(app).move_cursor(row=said.index("–"))
        await until(pilot, lambda: "not made: today" in characters(app))
        assert "today edgeq plans unquantized weights, but makes quantized ones" in why(app).replace("\n", " ")
    app = EdgeqApp(replace(planning("7B", "rtx-4090"), request=Request(targets=("llamacpp/cuda",))))
    async with app.run_test() as pilot:
        await ready(pilot)
        assert plan(app).recommended is not None and "★" not in marks(app)
        assert "edgeq can't make this one yet. Nor any other here" in guide(app)


async def test_another_context_plans_anew_and_is_kept():
    app = EdgeqApp(planning())
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        before = cells(table(app)._rows[0])["gb"]
        await pilot.press("e")
        await until(pilot, lambda: guide(app).startswith("Type what is asked"))
        assert app.focused is screen(app).query_one("#r-context")
        await pilot.press(*"32768")
        await until(pilot, lambda: plan(app).request.context == 32768)
        assert "32,768 tokens of context" in characters(app)
        assert float(cells(plan(app).candidates[0])["gb"]) > float(before)
        await pilot.press("enter")
        await until(pilot, lambda: app.focused is table(app))
        best = plan(app).recommended
        await until(pilot, lambda: looked(app) == f"{best.scheme.name} on {best.target}")
        await pilot.press("2")
        await until(pilot, lambda: app.step == "model")
        await pilot.press("3")
        await until(pilot, lambda: app.step == "plan" and screen(app)._planning is not None)
        assert plan(app).request.context == 32768
    assert journeys()[0].request.context == 32768


async def test_every_control_is_asked_of_the_plan():
    app = EdgeqApp(planning())
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        form = screen(app)
        await type_in(pilot, "batch", "2")
        await type_in(pilot, "max_memory", "9GB")
        await type_in(pilot, "min_tps", "2")
        form.query_one("#r-objective", Select).value = "quality"
        form.query_one("#r-kv_dtype", Select).value = "q8_0"
        form.query_one("#r-targets", Select).value = "llamacpp/cpu"
        await until(pilot, lambda: plan(app).request.targets == ("llamacpp/cpu",))
        asked = plan(app).request
        assert (asked.batch, asked.max_memory, asked.min_tps) == (2, 9 * 10**9, 2.0)
        assert (asked.objective, asked.kv_dtype) == ("quality", "q8_0")
        assert {c.target for c in table(app)._rows} == {"llamacpp/cpu"}
        table(app).focus()
        app.copy_to_clipboard = copied.append  # type: ignore[method-assign]
        await pilot.press("y")
        words = shlex.split(copied[0])
        assert words[:6] == ["edgeq", "plan", "-m", "7B", "-d", "ddr4-laptop"]
        assert words[words.index("--max-memory") + 1] == "9000000000"


copied: list[str] = []


async def test_a_wrong_value_says_so_at_its_field_and_the_last_plan_stays():
    app = EdgeqApp(planning())
    async with app.run_test() as pilot:
        await ready(pilot)
        first = plan(app)
        await pilot.press("e")
        field = screen(app).query_one("#r-context", Input)
        await type_in(pilot, "context", "12x")
        await until(pilot, lambda: field.has_class("wrong"))
        assert "not a number: '12x'" in characters(app)
        assert plan(app) is first
        await type_in(pilot, "context", "0")
        await until(pilot, lambda: "a context of 0 tokens. Give 1 or more" in characters(app))
        await type_in(pilot, "context", "4096")
        await until(pilot, lambda: plan(app).request.context == 4096 and not field.has_class("wrong"))
        assert "not a number" not in characters(app)


async def test_a_later_question_supersedes_an_earlier_one(monkeypatch):
    import threading

    from edgeq.plan import make_plan

    gate, asked = threading.Event(), []

    def slow(device, spec, request):
        asked.append(request.context)
        if request.context == 1000:
            gate.wait(30)
        return make_plan(device, spec, request)

    app = EdgeqApp(planning())
    async with app.run_test() as pilot:
        await ready(pilot)
        monkeypatch.setattr("edgeq.plan.make_plan", slow)
        await type_in(pilot, "context", "1000")
        await until(pilot, lambda: 1000 in asked)
        await type_in(pilot, "context", "2000")
        await until(pilot, lambda: plan(app).request.context == 2000)
        gate.set()
        await until(pilot, lambda: not any(w.is_running for w in app.workers))
        assert plan(app).request.context == 2000


async def test_when_nothing_fits_the_nearest_way_out_is_named():
    app = EdgeqApp(planning("70B"))
    async with app.run_test() as pilot:
        await ready(pilot)
        assert "Nothing fits. Smaller model:" in guide(app)
        assert "2 for another model" in guide(app)
        assert set(marks(app)) == {"✗"}
        assert "What would have to give" in why(app)
        await pilot.press("enter")
        await until(pilot, lambda: "Out: needs" in problem(app))
        await pilot.press("x")  # there is nothing else to show
        assert table(app).row_count > 0


async def test_when_nothing_is_fast_enough_it_is_not_said_to_be_too_large():
    app = EdgeqApp(planning())
    async with app.run_test() as pilot:
        await ready(pilot)
        await type_in(pilot, "min_tps", "500")
        await until(pilot, lambda: "Nothing meets what was asked. Less speed:" in guide(app))
        await type_in(pilot, "min_tps", "")
        await until(pilot, lambda: plan(app).recommended is not None and marks(app)[table(app).cursor_row] == "★")


async def test_the_arithmetic_lies_over_the_plan():
    app = EdgeqApp(planning())
    async with app.run_test() as pilot:
        await ready(pilot)
        await pilot.press("a")
        await until(pilot, lambda: isinstance(app.screen, ArithmeticScreen))
        await until(pilot, lambda: "GB/s" in characters(app))
        assert "KV cache" in characters(app)
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, PlanScreen))


async def test_views_take_turns_where_there_is_little_room_and_all_are_seen_where_there_is_more():
    app = EdgeqApp(planning())
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)

        def seen() -> list[str]:
            return [n for n in ("details", "form", "front", "roof") if screen(app).query_one(f"#{n}").region.area > 0]

        assert seen() == ["details"]
        for name in ("front", "roof", "details"):
            await pilot.press("v")
            await until(pilot, lambda name=name: seen() == [name])
        await pilot.press("e")
        await until(pilot, lambda: seen() == ["form"])
        await pilot.press("escape")
        await until(pilot, lambda: seen() == ["details"])
        await pilot.resize_terminal(140, 45)
        await until(pilot, lambda: seen() == ["details", "form", "front", "roof"])
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: seen() == ["details"])


@pytest.mark.parametrize("device", ["ddr4-laptop", "pixel-8", "rtx-3060"])
async def test_no_figure_is_cut_at_any_width(device):
    app = EdgeqApp(planning("llama-3.1-8b", device))
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        columns = {}
        for width in (80, 84, 90, 100, 115, 116, 130, 160, 200, 80):
            await pilot.resize_terminal(width, 40)
            await until(pilot, lambda width=width: app.size.width == width)
            await until(pilot, lambda: table(app).virtual_size.width <= table(app).size.width)
            for row in range(table(app).row_count):
                texts = cells(table(app)._rows[row])
                for n, column in enumerate(table(app).ordered_columns):
                    if column.key.value not in ("mark", "verdict"):
                        assert str(table(app).get_cell_at((row, n))) == texts[column.key.value]
            columns[width] = len(table(app).ordered_columns)
        assert columns[200] > columns[80]


async def test_a_choice_is_kept_and_leads_to_quantize(tmp_path):
    model = write_model(tmp_path / "model")
    app = EdgeqApp(planning(model))
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        assert plan(app).request.context == 128, "no longer than the model was made for"
        names = [f"{c.scheme.name} on {c.target}" for c in table(app)._rows]
        wanted = "rtn-int4-g32 on onnxruntime/cpu"
        table(app).move_cursor(row=names.index(wanted))
        await until(pilot, lambda: looked(app) == wanted and wanted in guide(app))
        await pilot.press("enter")
        await until(pilot, lambda: app.step == "quantize" and guide(app).startswith("Press s"))
        await pilot.press("b")
        await until(pilot, lambda: app.step == "plan")
        await ready(pilot)
        assert looked(app) == wanted
        assert marks(app)[table(app).cursor_row] == "●"
        await until(pilot, lambda: "is chosen" in guide(app))
        await type_in(pilot, "context", "64")
        await until(pilot, lambda: plan(app).request.context == 64)
        assert app.road.journey.request.context == 128, "the choice keeps its own until it is made again"
    kept = journeys()[0]
    assert (kept.scheme, kept.target, kept.request.context) == ("rtn-int4-g32", "onnxruntime/cpu", 128)


async def test_a_model_that_is_not_there_names_the_way_out(tmp_path):
    app = EdgeqApp(planning(tmp_path / "nowhere"))
    async with app.run_test() as pilot:
        await until(pilot, lambda: "press 2" in guide(app))
        assert "nowhere" in problem(app)
        for key in ("o", "e", "a", "v", "x", "y", "enter"):
            await pilot.press(key)
        assert app.step == "plan"


# Pictures.


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("what", ["first", "out", "nothing", "ask", "plots", "figures"])
async def test_pictures(what, size, theme, monkeypatch):
    monkeypatch.setattr("edgeq.journey.save", lambda _: None)
    # What the documents show is of the model that they follow along the road.
    app = EdgeqApp(planning({"nothing": "70B", "out": "7B"}.get(what, "smollm2-135m")))
    async with app.run_test(size=size) as pilot:
        app.theme = theme
        await ready(pilot)
        for field in app.screen.query(Input):
            field.cursor_blink = False
        for key in {"out": ("ctrl+end",), "ask": ("e", "1", "x"), "plots": ("v", "v"), "figures": ("a",)}.get(what, ()):
            await pilot.press(key)
        await check(pilot, f"plan-{what}-{size[0]}x{size[1]}-{theme.removeprefix('edgeq-')}")
