"""`edgeq run`: one answer, piped input, a chat."""

from __future__ import annotations

import io

import pytest

import edgeq
from edgeq.cli.main import main

LIMIT = ["--max-tokens", "6", "--threads", "1"]


@pytest.fixture(scope="module")
def answers(artifact):
    """What the session itself says."""
    with edgeq.load(artifact, threads=1) as session:
        return {
            "raw": session.generate("Hi", max_tokens=6),
            "chat": session.generate("Hi", chat=True, max_tokens=6),
            "system": session.generate("Hi", chat=True, system="S", max_tokens=6),
        }


def run(*arguments):
    with pytest.raises(SystemExit) as left:
        main(["run", *map(str, arguments)])
    return left.value.code


class Terminal(io.StringIO):
    """A person at a terminal who types these lines; an exception is what the key press causes."""

    def isatty(self):
        return True


def at_terminal(monkeypatch, *typed):
    lines = iter(typed)

    def read(prompt=""):
        line = next(lines, EOFError())
        if isinstance(line, BaseException):
            raise line
        return line

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("builtins.input", read)


@pytest.mark.parametrize(("name", "extra"), [("raw", ["--raw"]), ("chat", []), ("system", ["--system", "S"])])
def test_one_answer(artifact, answers, capsys, name, extra):
    assert run(artifact, "Hi", *LIMIT, *extra, "--stats") == 0
    out, err = capsys.readouterr()
    assert out == answers[name] + "\n"
    assert "prompt tokens (0 reused)" in err and "tok/s" in err


def test_piped_prompt(artifact, answers, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("Hi"))
    assert run(artifact, "--raw", *LIMIT) == 0
    assert capsys.readouterr().out == answers["raw"] + "\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(" \n"))
    assert run(artifact) == 2
    assert capsys.readouterr().err.startswith("error: no prompt (standard input)")


def test_chat(artifact, answers, capsys, monkeypatch):
    at_terminal(monkeypatch, "Hi", "", "/stats", "/what", "more", "/reset", KeyboardInterrupt(), "Hi", "/quit", "no")
    assert run(artifact, *LIMIT) == 0
    out, err = capsys.readouterr()
    assert out.count(answers["chat"] + "\n") >= 2
    assert err.count("/reset forgets") == 2
    assert err.count("prompt tokens") == 1


def test_ctrl_c_stops_the_answer_and_not_the_program(artifact, answers, capsys, monkeypatch):
    import edgeq.cli.run_ as command

    shown = command._show
    calls = []

    def interrupted(pieces):
        calls.append(1)
        if len(calls) == 1:
            next(pieces)
            raise KeyboardInterrupt
        shown(pieces)

    monkeypatch.setattr(command, "_show", interrupted)
    at_terminal(monkeypatch, "Hi", "/reset", "Hi")
    assert run(artifact, *LIMIT) == 0
    out = capsys.readouterr().out
    assert "[stopped]" in out
    assert answers["chat"] in out


def test_a_message_too_long_does_not_end_the_chat(artifact, capsys, monkeypatch):
    at_terminal(monkeypatch, "x" * 100, "Hi")
    assert run(artifact, *LIMIT, "--context", "60") == 0
    assert "the context holds 60" in capsys.readouterr().err


def test_model_without_template(artifact, answers, tmp_path, capsys, monkeypatch, changed_artifact, tokenizer_folder):
    folder = changed_artifact(artifact, tmp_path / "base", lambda model: None)
    tokenizer_folder(folder, None)
    assert run(folder, "Hi", *LIMIT) == 0
    out, err = capsys.readouterr()
    assert out == answers["raw"] + "\n"
    assert "no chat template" in err
    assert run(folder, "Hi", "--system", "S") == 2
    at_terminal(monkeypatch, "Hi")
    assert run(folder) == 2
    assert "error: this model has no chat template" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Hi", "--temperature", "-1"], "temperature is -1.0"),
        (["Hi", "--top-k", "many"], "--top-k"),
        (["Hi", "--context", "5000"], "knows 1024 positions"),
        (["Hi", "--runtime", "nothing"], "no runtime named 'nothing'"),
    ],
)
def test_bad_input(artifact, capsys, arguments, message):
    assert run(artifact, *arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and message in err and err.count("\n") == 1
