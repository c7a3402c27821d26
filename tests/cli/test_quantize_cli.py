"""`edgeq quantize`: options, recipes, dry run, and one line for what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeq.checkpoint.store import Checkpoint
from edgeq.cli.main import main
from edgeq.recipe import Recipe, read_recipe


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["quantize", *map(str, arguments)])
    return int(caught.value.code or 0)


def test_options_make_the_recipe(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, saved = tmp_path / "q", tmp_path / "r.toml"
    options = ["--bits", 3, "--group-size", 64, "--symmetric", "--embed-bits", 4, "--save-recipe", saved]
    assert run(model, *options, "-o", out) == 0
    assert Checkpoint.open(out).scheme.name == "rtn-int3-g64-sym"
    assert read_recipe(saved) == Recipe(str(model), bits=3, group_size=64, symmetric=True, embed_bits=4)
    printed = capsys.readouterr().out.replace("\n", "")
    assert "rtn-int3-g64-sym" in printed and "bits a weight" in printed and "edgeq export" in printed


def test_a_recipe_file_and_options_beside_it(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text(Recipe(str(model), bits=2, group_size=16).to_toml())
    assert run("--recipe", file, "--bits", 5, "-o", tmp_path / "q") == 0
    assert Checkpoint.open(tmp_path / "q").scheme.name == "rtn-int5-g16"


def test_a_model_beside_a_recipe_file_that_names_none_or_another(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    for text in ("bits = 2", 'model = "elsewhere"\nbits = 2'):
        file.write_text(text)
        assert run(model, "--recipe", file, "--force", "-o", tmp_path / "q") == 0
        made = Checkpoint.open(tmp_path / "q")
        assert made.scheme.name == "rtn-int2-g32" and made.manifest.recipe["model"] == str(model)


def test_a_recipe_file_without_a_model_needs_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "r.toml"
    file.write_text("bits = 2")
    assert run("--recipe", file, "-o", tmp_path / "q") == 2
    assert "lacks 'model'" in capsys.readouterr().err


def test_the_plan_s_half_precision_command(model: Path, tmp_path: Path) -> None:
    assert run(model, "--method", "none", "--bits", 16, "--group-size", -1, "--symmetric", "-o", tmp_path / "q") == 0
    assert Checkpoint.open(tmp_path / "q").scheme.name == "fp16"


def test_dry_run_writes_nothing(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(model, "--dry-run", "-o", tmp_path / "q") == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]
    printed = capsys.readouterr().out
    assert "memory at the peak" in printed and "checkpoint" in printed


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["MODEL"], "no output folder"),
        ([], "no model"),
        (["MODEL", "--bits", 9, "-o", "OUT"], "bits is 9"),
        (["MODEL", "--bits", "x", "-o", "OUT"], "--bits"),
        (["MODEL", "--group-size", 100, "-o", "OUT"], "group_size is 100"),
        (["MODEL", "--method", "magic", "-o", "OUT"], "no quantization method"),
        (["MODEL", "--method", "none", "-o", "OUT"], "keeps 16 bits"),
        (["MODEL", "--head", "big", "-o", "OUT"], "'big'"),
        (["MODEL", "-o", "MODEL"], "exists already"),
        (["/none/such", "-o", "OUT"], "no such file"),
        (["7B", "-o", "OUT"], "size class"),
        (["--recipe", "/none.toml", "-o", "OUT"], "cannot read the recipe"),
    ],
)
def test_one_line_for_what_is_wrong(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[object], says: str
) -> None:
    places = {"MODEL": model, "OUT": tmp_path / "q"}
    assert run(*[places.get(a, a) if isinstance(a, str) else a for a in arguments]) == 2
    printed = capsys.readouterr().err.strip()
    assert printed.startswith("error: ") and says in printed and "\n" not in printed
    assert not (tmp_path / "q").exists()
