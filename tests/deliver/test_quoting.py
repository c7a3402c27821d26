"""Whatever a folder is called, its literal is one string of the language, and says the same."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgeq.deliver.quoting import QUOTES
from edgeq.deliver.ways import fill

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
NASTY = "C:\\new\\x1 \"a\" 'b' $HOME ${x} \\(y) ??/ `z` %s <<PATH>>\n\u2028é模🚀"
_ESCAPES = {
    "csharp": r'\\(?:u(?P<four>[0-9a-f]{4})|(?P<short>[\\"nrt]))',
    "kotlin": r'\\(?:u(?P<four>[0-9a-f]{4})|(?P<short>[\\"nrt$]))',
    "swift": r'\\(?:u\{(?P<four>[0-9a-f]{1,8})\}|(?P<short>[\\"nrt]))',
}
_SHORT = {"n": "\n", "r": "\r", "t": "\t"}


@given(TEXTS)
@example(NASTY)
def test_python(text: str) -> None:
    assert ast.literal_eval(QUOTES["python"](text)) == text


@given(TEXTS)
@example(NASTY)
def test_shell(text: str) -> None:
    assert shlex.split(QUOTES["bash"](text)) == [text]


@pytest.mark.parametrize("language", list(_ESCAPES))
@given(text=TEXTS)
@example(text=NASTY)
def test_languages_with_double_quotes(language: str, text: str) -> None:
    literal = QUOTES[language](text)
    body = literal[1:-1]
    assert literal[0] == literal[-1] == '"'
    escape = re.compile(_ESCAPES[language])
    rest = escape.sub("", body)
    assert not re.search(r'[\\"\x00-\x1f\x7f\x85\u2028\u2029]', rest)
    assert language != "kotlin" or "$" not in rest
    plain = escape.sub(lambda m: chr(int(m["four"], 16)) if m["four"] else _SHORT.get(m["short"], m["short"]), body)
    assert plain == text


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_c(tmp_path: Path) -> None:
    texts = [NASTY, "\x01" + "7", "a\x85b", "??=??)", "\t\r\n\x7f9", '"', "\\"]
    lines = [f"  std::fwrite({QUOTES['cpp'](t)}, 1, {len(t.encode())}, stdout);" for t in texts]
    source = tmp_path / "program.cpp"
    source.write_text("#include <cstdio>\nint main() {\n" + "\n".join(lines) + "\n}\n", "utf-8")
    subprocess.run(["g++", "-Wall", "-Werror", "-std=c++14", str(source), "-o", str(tmp_path / "program")], check=True)
    found = subprocess.run([str(tmp_path / "program")], capture_output=True, check=True).stdout
    assert found.decode() == "".join(texts)


def test_what_is_filled_in_is_not_filled_in_again() -> None:
    assert fill("<<PATH>> <<LENGTH>>", "python", {"PATH": "<<LENGTH>>", "LENGTH": 7}) == '"<<LENGTH>>" 7'
