"""The application in a real terminal, with real keys: tmux holds it, types, and says what is on the screen."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from making_data import write_model

from edgeq.checkpoint.store import Checkpoint
from edgeq.jobs import all_jobs, cancel
from edgeq.journey import journeys

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="no tmux")
SHELL_SAYS = "ready>"


class Terminal:
    """A shell in a terminal of 80 by 24 characters, on a tmux server of its own."""

    def __init__(self, socket: Path, env: dict[str, str]) -> None:
        self._tmux = ["tmux", "-S", str(socket), "-f", os.devnull]
        size = ["-x", "80", "-y", "24"]
        given = [part for name, value in env.items() for part in ("-e", f"{name}={value}")]
        self._run("new-session", "-d", *size, *given, "env", "-u", "NO_COLOR", "PS1=ready> ", "sh")

    def _run(self, *command: str) -> str:
        return subprocess.run([*self._tmux, *command], capture_output=True, text=True, check=True, timeout=60).stdout

    def close(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], capture_output=True, check=False, timeout=60)

    def type(self, line: str) -> None:
        self._run("send-keys", "-l", line)
        self.press("Enter")

    def press(self, *keys: str) -> None:
        self._run("send-keys", *keys)

    def shown(self) -> str:
        return self._run("capture-pane", "-p")

    def state(self) -> str:
        """Whether it is the alternate screen, the cursor is there, and the mouse is listened to."""
        return self._run("display-message", "-p", "#{alternate_on} #{cursor_flag} #{mouse_any_flag}").strip()

    def until(self, seen: Callable[[str], bool], seconds: float = 120) -> str:
        end = time.monotonic() + seconds
        while not seen(now := self.shown()):
            assert time.monotonic() < end, f"still on the screen:\n{now}"
            time.sleep(0.1)
        return now


@pytest.fixture
def terminal(own_home: Path) -> Iterator[Terminal]:
    home, socket = str(own_home), own_home.parent / "tmux"
    made = Terminal(
        socket,
        {"EDGEQ_HOME": home, "HF_HUB_OFFLINE": "1", "HF_HOME": f"{home}-hf", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"},
    )
    yield made
    made.close()
    for job in all_jobs():
        cancel(job)


def edgeq(*arguments: object) -> str:
    return shlex.join([sys.executable, "-P", "-m", "edgeq", *map(str, arguments)])


def test_from_a_plan_to_a_quantized_model_and_back_to_the_shell(terminal: Terminal, tmp_path: Path):
    model, plan = write_model(tmp_path / "model"), tmp_path / "plan.json"
    terminal.until(lambda now: SHELL_SAYS in now)
    terminal.type(f"{edgeq('plan', '-m', model, '--context', 64, '-t', 'onnxruntime/cpu', '--json')} > {plan}")
    terminal.until(lambda _: plan.exists() and complete(plan))
    before = terminal.state()
    terminal.type(edgeq("tui", "--plan", plan))
    terminal.until(lambda now: "Press s" in now)
    assert terminal.state().startswith("1 ")
    terminal.press("s")
    now = terminal.until(lambda now: "Done. Press n" in now and "bits a weight" in now)
    assert "4 Quantize" in now
    terminal.press("?")
    terminal.until(lambda now: "Quantizing writes" in now)
    terminal.press("Escape")
    terminal.until(lambda now: "Done. Press n" in now)
    terminal.press("q")
    terminal.until(lambda now: SHELL_SAYS in now)
    assert terminal.state() == before, "the shell's own screen, cursor and mouse are back"
    terminal.type("echo $((111111*7))")
    terminal.until(lambda now: "777777" in now)
    made = [p.parent for p in (tmp_path / "edgeq-models").glob("*/manifest.json")]
    assert len(made) == 1
    assert Checkpoint.open(made[0]).manifest.tensors


def test_from_nothing_to_a_quantized_model_by_keys_alone(terminal: Terminal, tmp_path: Path):
    model = write_model(tmp_path / "mine" / "tiny", layers=2)
    terminal.until(lambda now: SHELL_SAYS in now)
    terminal.type(edgeq("tui"))
    terminal.until(lambda now: "Press n to choose a model" in " ".join(now.split()))
    terminal.press("n")
    terminal.until(lambda now: "2 Model" in now and "Choose with" in now)
    terminal.press(*"/mine/tiny")  # faster than any person: none of it is lost, and none taken for a key
    terminal.until(lambda now: "As you typed it" in now)
    terminal.press("Enter")
    terminal.until(lambda now: "edgeq's advice" in now)
    terminal.press("Enter")
    terminal.until(lambda now: "Press s to begin" in now)
    terminal.press("s")
    terminal.until(lambda now: "Done. Press n" in now and "bits a weight" in now)
    terminal.press("q")
    terminal.until(lambda now: SHELL_SAYS in now)
    kept = journeys()[0]
    assert kept.model == str(model)
    assert Checkpoint.open(str(kept.checkpoint)).path.is_relative_to(tmp_path / "edgeq-models")


def complete(plan: Path) -> bool:
    try:
        return "recommended" in json.loads(plan.read_text())
    except ValueError:
        return False
