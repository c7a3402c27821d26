"""`edgeq export --help` says which exporter has an option, section by section."""

from __future__ import annotations

import re
import subprocess
import sys

from edgeq.cli.export_ import flag
from edgeq.registry import exporter, names

SECTION = re.compile(r"^(\S.*):$", re.MULTILINE)


def sections(command: str) -> dict[str, str]:
    line = [sys.executable, "-m", "edgeq", command, "--help"]
    said = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    parts = SECTION.split(said)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_options_stand_under_the_exporter_that_has_them() -> None:
    found = sections("export")
    assert list(found)[:2] == ["Arguments", "Options"]
    for title, text in found.items():
        if title.startswith("--to "):
            only = title.removeprefix("--to ")
            options = re.findall(r"^  (--[a-z-]+)", text, re.MULTILINE)
            assert options
            for option in options:
                having = [n for n in names("edgeq.exporters") if option in map(flag, exporter(n).options)]
                assert having == [only]


def test_every_exporters_option_is_in_it() -> None:
    text = "".join(sections("export").values())
    for name in names("edgeq.exporters"):
        assert all(f"{flag(option)} " in text for option in exporter(name).options)


def test_every_exporter_is_named() -> None:
    assert all(name in sections("export")["Options"] for name in names("edgeq.exporters"))


def test_arguments_are_listed_once_with_their_help_and_brackets_are_plain() -> None:
    found = sections("export")
    assert "A folder that `edgeq quantize` made" in found["Arguments"] and "Positional arguments" not in found
    assert "\\[" not in "".join(found.values())
    assert set(sections("run")) >= {"Arguments", "Options"}
