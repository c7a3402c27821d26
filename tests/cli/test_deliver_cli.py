"""`edgeq deliver`: what it prints, one program alone, the report as Markdown and JSON, errors."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from edgeq.cli.main import main


@pytest.fixture
def artifact(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    monkeypatch.setenv("EDGEQ_HOME", str(tmp_path / "home"))
    assert run("quantize", model, "-o", tmp_path / "q", "--threads", 1) == 0
    assert run("export", tmp_path / "q", "--to", "gptq", "-o", tmp_path / "made") == 0
    capsys.readouterr()
    return tmp_path / "made"


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([*map(str, arguments)])
    return int(left.value.code or 0)


def test_it_says_where_it_is_and_how_it_is_loaded(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("deliver", artifact) == 0
    printed = capsys.readouterr().out
    assert "for transformers" in printed and "made" in printed and "read back" in printed
    assert "AutoModelForCausalLM.from_pretrained(folder)" in printed
    assert "vllm    vLLM: pip install vllm" in printed


def test_one_program_alone_can_be_piped(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("deliver", artifact, "--way", "transformers") == 0
    compile(capsys.readouterr().out, "program", "exec")
    assert run("deliver", artifact, "--way", "cobol") == 2
    assert "Known: transformers, vllm, sglang" in capsys.readouterr().err


def test_the_report_beside_it_elsewhere_and_as_json(
    artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("deliver", artifact, "--report") == 0
    place = tmp_path / "made-report.md"
    assert capsys.readouterr().out == f"The report is {place}\n"
    assert "## Recipe" in place.read_text("utf-8")
    assert run("deliver", artifact, "-o", tmp_path / "new" / "r.json") == 0
    kept = json.loads((tmp_path / "new" / "r.json").read_text("utf-8"))
    capsys.readouterr()
    assert run("deliver", artifact, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    moment = {"date": "", "choice": ""}  # of the choice the memory that is free
    assert {**printed, **moment} == {**kept, **moment} and set(printed["choice"]) == set(kept["choice"])
    assert printed["commands"][0].startswith("edgeq quantize")
    assert [way["id"] for way in printed["ways"]] == ["transformers", "vllm", "sglang"]


def test_what_is_not_there_is_an_error_with_a_way_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("deliver", tmp_path / "gone") == 2
    assert "no such artifact folder" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_can_t_be_written(artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    assert run("deliver", artifact, "-o", closed / "r.md") == 2
    assert "Choose another place" in capsys.readouterr().err
