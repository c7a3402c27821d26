"""`edgeq report` and its picture, `edgeq quantize` from plans and schemes' names."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from edgeq.checkpoint.store import Checkpoint
from edgeq.cli.main import main
from edgeq.errors import EdgeqError
from edgeq.jsonable import to_json
from edgeq.quantize.heat import COOL, WARM, Heat, axes, dark, heats, percent
from edgeq.quantize.layer_rows import LayerRow, layer_rows
from edgeq.quantize.picture import picture
from edgeq.quantize.words import calibration_line, duration, rate
from edgeq.recipe import CODEBOOK_GRIDS, Recipe, read_recipe, recipe_named
from edgeq.scheme import named_scheme


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main([*map(str, arguments)])
    return int(caught.value.code or 0)


def rows(**changes: Any) -> list[LayerRow]:
    one = LayerRow("layers.0.q", 0, "q", "int4 g32", 4.5, 0.1, 0.02, 0.01, None, 0.5)
    return [
        replace(one, **changes),
        replace(one, name="layers.0.down", role="down", bits=6.5, error_after=0.0001),
        replace(one, name="layers.1.q", layer=1, error_after=0.02, fallback="gptq was worse <here>"),
        replace(one, name="embed", layer=None, role="embed"),
    ]


def test_a_calibrated_run_is_reported_layer_by_layer(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "q"
    text = ("--calibration-tokens", 256, "--calibration-length", 32)
    assert run("quantize", model, "-o", out, "--method", "gptq", "--threads", 1, "--seed", 3, *text) == 0
    printed = capsys.readouterr().out
    assert "256 tokens; written by the model itself" in printed and "(predicted" in printed
    assert run("report", out, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["calibration"]["seed"] == 3 and found["seconds"] > 0
    names = [layer["name"] for layer in found["layers"]]
    assert {"embed", "layers.0.q", "layers.1.down"} <= set(names)
    judged = [layer for layer in found["layers"] if layer["error_after"] is not None]
    assert judged and all(layer["error_after"] <= layer["error_before"] for layer in judged)
    assert run("report", out, "--all", "--picture", tmp_path / "p.svg") == 0
    printed = capsys.readouterr().out
    assert "output error, %" in printed and "all matrices" in printed and "layers.1.down" in printed
    ElementTree.parse(tmp_path / "p.svg")


def test_the_bits_are_those_of_the_file(model: Path, tmp_path: Path) -> None:
    assert run("quantize", model, "-o", tmp_path / "q", "--bits", 3, "--symmetric") == 0
    made = Checkpoint.open(tmp_path / "q")
    found = {r.name: r for r in layer_rows(made)}
    assert found["layers.0.q"].bits == 3 + 16 / 32  # a half-precision scale for 32 weights
    assert found["layers.0.q"].error == found["layers.0.q"].weight_error ** 2
    written = sum(r.bits * np.prod(made.manifest.tensors[n].shape) for n, r in found.items()) / 8
    assert 0.8 * made.weight_bytes < written < made.weight_bytes  # the rest: norms and the shards' headers


def test_the_picture_names_every_cell_and_marks_what_fell_back(model: Path, tmp_path: Path) -> None:
    assert run("quantize", model, "-o", tmp_path / "q") == 0
    svg = picture(Checkpoint.open(tmp_path / "q"), rows())
    root = ElementTree.fromstring(svg)
    titles = [t.text or "" for t in root.iter("{http://www.w3.org/2000/svg}title")]
    assert len(titles) == 6 and "layers.1.q: 0.02 (gptq was worse <here>)" in titles
    assert len(list(root.iter("{http://www.w3.org/2000/svg}circle"))) == 2
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    for rect in root.iter("{http://www.w3.org/2000/svg}rect"):
        assert float(rect.get("x", 0)) + float(rect.get("width", 0)) <= width
        assert float(rect.get("y", 0)) + float(rect.get("height", 0)) <= height


@pytest.mark.parametrize(("name", "says"), [("p.gif", "an .svg or a .png"), ("p.png", "pip install cairosvg")])
def test_a_picture_that_can_t_be_made(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    says: str,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cairosvg", None)
    assert run("quantize", model, "-o", tmp_path / "q") == 0
    assert run("report", tmp_path / "q", "--picture", tmp_path / name) == 2
    assert says in capsys.readouterr().err and not (tmp_path / name).exists()


def test_a_model_in_half_precision_has_nothing_to_draw(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("quantize", model, "-o", tmp_path / "q", "--method", "none", "--bits", 16) == 0
    assert run("report", tmp_path / "q") == 0
    assert heats([]) == ()
    with pytest.raises(EdgeqError, match="no quantized layers"):
        picture(Checkpoint.open(tmp_path / "q"), [])
    assert run("report", tmp_path) == 2
    assert "not a checkpoint" in capsys.readouterr().err


def test_colours_follow_the_values() -> None:
    error, bits = heats(rows())
    assert axes(rows()) == ([0, 1], ["q", "down"])
    assert [error.at(v) for v in (0.0001, 0.02)] == [0.0, 1.0]
    assert error.at((0.0001 * 0.02) ** 0.5) == pytest.approx(0.5)  # logarithmic
    assert (bits.low, bits.high, bits.at(4), bits.at(5.5)) == (4, 7, 0.0, 0.5)
    assert (error.colour(0.0001), bits.colour(7.0)) == (WARM[0], COOL[-1])
    assert not dark(WARM[0]) and dark(WARM[-1])
    assert Heat("", {(0, "q"): 4.5, (0, "k"): 4.5}, 4, 5, False, COOL, str).even


@pytest.mark.parametrize(
    ("share", "shown"), [(0.0043, "0.43"), (0.123, "12"), (0.00039, "0.039"), (4e-5, "4e-03"), (0, "0"), (2.5, "250")]
)
def test_shares_are_short(share: float, shown: str) -> None:
    assert percent(share) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(8.24, "8.2 s"), (59.9, "59.9 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_rates_have_the_unit_of_the_work() -> None:
    assert rate(1234.4, "writing calibration text") == "1,234 tokens/s"
    assert (rate(2.5e6, "layers.0.q"), rate(None, "x")) == ("2.50M weights/s", "")


def test_calibration_in_a_line() -> None:
    facts = {"kind": "text", "name": "a.txt", "tokens": 2048, "used": "3% of the file's 9 tokens", "note": "short"}
    assert calibration_line(facts) == "2,048 tokens; a.txt; 3% of the file's 9 tokens; short"


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe("m", method="gptq"),
        Recipe("m", method="awq+gptq", bits=3, group_size=128, symmetric=True),
        Recipe("m", method="gptq", grid="affine", group_size=64),
        Recipe("m", method="rtn", bits=8, group_size=-1, symmetric=True, activations="static"),
        Recipe("m", method="gptq", bits=8, activations="dynamic"),
        *(Recipe("m", method="nf4", grid=name, group_size=64) for name in CODEBOOK_GRIDS),
        Recipe("m", method="sparsegpt-2:4", grid="int"),
    ],
)
def test_the_name_of_a_recipe_s_scheme_makes_it_again(recipe: Recipe) -> None:
    again = recipe_named("m", recipe.scheme.name)
    assert again.scheme == recipe.scheme


@pytest.mark.parametrize("name", ["q4_k", "q6_k", "iq4_xs", "q4_0"])
def test_block_types_by_name(name: str) -> None:
    assert recipe_named("m", f"gptq-{name}").scheme.linear == Recipe("m", method="gptq", grid=name).scheme.linear


def test_the_plan_s_own_names() -> None:
    assert recipe_named("m", "gptq-int4-g128-sym").scheme == named_scheme("gptq-int4-g128-sym")
    assert recipe_named("m", "w8a8-smooth").method == "smoothquant"
    assert recipe_named("m", "fp16").scheme.linear.bits == 16
    assert (recipe_named("m", "gguf-q4_0").method, recipe_named("m", "gguf-q4_0").grid) == ("rtn", "q4_0")
    for name, says in (("fp32", "no recipe"), ("int4", "unknown scheme")):
        with pytest.raises(EdgeqError, match=says):
            recipe_named("m", name)


def test_a_scheme_by_name_with_an_option_beside_it(model: Path, tmp_path: Path) -> None:
    options = ("--scheme", "rtn-int3-g64", "--bits", 5, "--save-recipe", tmp_path / "r.toml")
    assert run("quantize", model, *options, "-o", tmp_path / "q") == 0
    assert Checkpoint.open(tmp_path / "q").scheme.name == "rtn-int5-g64"
    assert read_recipe(tmp_path / "r.toml").bits == 5


def plan(model: Path, **changes: Any) -> str:
    best = {"scheme": to_json(named_scheme("rtn-int4-g64-sym")), "not_yet": None}
    return json.dumps({"model": {"name": "m", "location": str(model)}, "recommended": best, **changes})


def test_straight_from_a_plan(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plan.json").write_text(plan(model))
    assert run("quantize", "--plan", tmp_path / "plan.json", "-o", tmp_path / "a") == 0
    monkeypatch.setattr("sys.stdin", io.StringIO(plan(Path("/elsewhere"))))
    assert run("quantize", model, "--plan", "-", "-o", tmp_path / "b") == 0
    assert {Checkpoint.open(tmp_path / n).scheme.name for n in "ab"} == {"rtn-int4-g64-sym"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not a plan"),
        ("[]", "not a plan"),
        (plan(Path("m"), recommended=None), "recommends nothing"),
        (plan(Path("m"), recommended={"not_yet": "llama.cpp makes it", "scheme": {}}), "not for edgeq to make"),
    ],
)
def test_a_plan_that_can_t_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    assert run("quantize", "--plan", tmp_path / "plan.json", "-o", tmp_path / "q") == 2
    assert says in capsys.readouterr().err
    assert run("quantize", "--plan", tmp_path / "none.json", "-o", tmp_path / "q") == 2
    assert "cannot read the plan" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--scheme", "rtn-int4-g32", "--plan", "p.json"), "contradict"),
        (("--scheme", "magic"), "unknown scheme"),
        (("--grid", "hexagonal"), "no grid"),
        (("--activations", "wild"), "wild"),
        (("--budget", "99"), "a budget of 99"),
        (("--threads", "0"), "0 threads"),
        (("--calibration-length", "1"), "sequences of 1"),
    ],
)
def test_options_that_make_no_sense(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], says: str
) -> None:
    assert run("quantize", model, *options, "-o", tmp_path / "q") == 2
    printed = capsys.readouterr().err.strip()
    assert printed.startswith("error: ") and says in printed and "\n" not in printed


def test_every_method_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    from edgeq.cli.quantize_ import METHODS
    from edgeq.quantize.methods import NAMED

    assert set(METHODS.split(", ")) <= set(NAMED)
    assert run("quantize", "--methods") == 0
    printed = capsys.readouterr().out
    assert all(re.search(rf"^{re.escape(name)} +\S", printed, re.MULTILINE) for name in NAMED)
