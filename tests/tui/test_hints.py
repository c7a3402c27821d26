"""What errors advise, in the application's words: no option of a command is left in any of them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeq.errors import EdgeqError
from edgeq.tui.hints import error_line, in_app

ROOT = Path(__file__).resolve().parents[2]
COMMAND_LINE_ALONE = ("edgeq/cli", "edgeq/demo")


def hints() -> Iterator[tuple[str, str]]:
    """Every `hint=` of the sources, with an X for what is filled in, and where it is."""
    for tree in ("edgeq", "exporters", "runtimes"):
        for file in sorted((ROOT / tree).rglob("*.py")):
            place = file.relative_to(ROOT).as_posix()
            if place.startswith(COMMAND_LINE_ALONE):
                continue
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                if isinstance(node, ast.keyword) and node.arg == "hint" and (said := text(node.value)):
                    yield said, f"{place}:{node.value.lineno}"


def text(value: ast.expr) -> str:
    if isinstance(value, ast.Constant):
        return str(value.value or "")
    if isinstance(value, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in value.values)
    return ""


def test_no_hint_is_left_in_the_command_line_s_words():
    found = list(hints())
    assert len(found) > 100 and any("--" in said for said, _ in found), "they were looked for in the wrong place"
    bare = [(where, re.sub("`[^`]+`", "", in_app(said))) for said, where in found]  # without whole commands
    options = [one for one in bare if re.search(r"(^|\s)--[a-z]", one[1])]
    assert options == []
    command = re.compile(r"`edgeq |(^|: )edgeq (export|quantize|plan|profile|bench|run|eval|verify|convert|doctor)\b")
    commands = [(where, in_app(said)) for said, where in found if command.search(in_app(said))]
    assert [c for c in commands if "terminal" not in c[1].lower()] == []


@pytest.mark.parametrize(
    ("said", "here"),
    [
        ("Free space or choose another --out", "Free space, or choose another folder"),
        ("Make one with `edgeq quantize`", "Press 4 to make one"),
        ("edgeq export /home/ada/made", "Press 5 to export one"),
        ("edgeq export --to openvino makes an artifact that OpenVINO itself runs", "Press 5 and choose openvino"),
        ("Leave --kv-dtype or --dtype out", "Leave kv dtype or dtype at its default"),
        ("Leave --dtype out", "Leave dtype at its default"),
        ("Add --dtype f32", "Choose f32 as dtype"),
        ("`edgeq doctor` says which", "In a terminal: `edgeq doctor` says which"),
        ("stores minima; quantize with --grid affine, or --symmetric",
         "stores minima; quantize with the grid affine, or the range symmetric"),
        ("Ask for fewer tokens/s", "Ask for fewer tokens/s"),
        ("no such file: /home/ada/my--dir/--out", "no such file: /home/ada/my--dir/--out"),
        ("", ""),
    ],
)  # fmt: skip
def test_hints_name_keys_and_fields(said, here):
    assert in_app(said) == here
    assert in_app(here) == here, "said twice, it stays"


def test_an_error_beside_a_field_is_a_line():
    assert error_line(EdgeqError("no memory at all", where="--max-memory", hint="Give a size such as 6GB")) == (
        "no memory at all. Give a size such as 6GB"
    )
    assert error_line(EdgeqError("it is so")) == "it is so"
