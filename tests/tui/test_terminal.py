"""A real terminal and real keys: from nothing to a quantized model in tmux, at 80 columns and 24 lines."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from making_data import write_model

from edgeq.checkpoint.store import Checkpoint
from edgeq.jobs import all_jobs, cancel
from edgeq.journey import journeys

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")
PATIENCE = 180.0


class Terminal:
    """A shell of 80x24 in a tmux server of its own, and what is seen of it."""

    def __init__(self, folder: Path, home: Path) -> None:
        self._tmux = ["tmux", "-L", f"edgeq-test-{uuid.uuid4().hex[:8]}", "-f", os.devnull]
        env = {
            "EDGEQ_HOME": str(home),
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(folder / "no-cache"),
            "PS1": "ready$ ",
            "LC_ALL": "C.UTF-8",
        }
        shell = ["env", "-u", "TMUX", "-u", "NO_COLOR", *(f"{name}={value}" for name, value in env.items()), "sh"]
        self._run("new-session", "-d", "-x", "80", "-y", "24", "-c", str(folder), shlex.join(shell))

    def _run(self, *words: str) -> str:
        return subprocess.run([*self._tmux, *words], check=True, capture_output=True, text=True, timeout=60).stdout

    def screen(self) -> str:
        return self._run("capture-pane", "-p")

    def key(self, *names: str) -> None:
        """As tmux names them: `Enter`, `Escape`, `n`."""
        self._run("send-keys", *names)

    def write(self, text: str) -> None:
        self._run("send-keys", "-l", text)

    def sees(self, *parts: str) -> str:
        """Wait until all of these are on the screen, however the lines are broken."""
        end = time.monotonic() + PATIENCE
        while True:
            seen = self.screen()
            if all(part in " ".join(seen.split()) for part in parts):
                return seen
            assert time.monotonic() < end, f"waiting for {parts}:\n{seen}"
            time.sleep(0.1)

    def close(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], check=False, capture_output=True, timeout=60)


@pytest.fixture
def terminal(tmp_path: Path, own_home: Path) -> Iterator[Terminal]:
    found = Terminal(tmp_path, own_home)
    try:
        yield found
    finally:
        found.close()
        for job in all_jobs():
            cancel(job)


def test_from_nothing_to_a_quantized_model(terminal: Terminal, tmp_path: Path) -> None:
    model = write_model(tmp_path / "mine" / "tiny", layers=2)
    terminal.sees("ready$")
    terminal.write(f"{shlex.quote(sys.executable)} -P -m edgeq tui --folder out")
    terminal.key("Enter")
    terminal.sees("1 Device", "Press n to choose a model")
    terminal.key("n")
    terminal.sees("2 Model", "Choose with")
    terminal.key("/")
    terminal.write("mine/tiny")
    terminal.sees("As you typed it")
    terminal.key("Enter")
    terminal.sees("3 Plan", "edgeq's advice")
    terminal.key("Enter")
    terminal.sees("4 Quantize", "Press s to begin")
    terminal.key("s")
    terminal.sees("Done. Next: export it", "bits a weight")
    terminal.key("q")
    terminal.sees("ready$")
    terminal.write("echo s''ane; stty -a | tr ' ' '\\n' | grep -x -e echo -e icanon | tr '\\n' ' '")
    terminal.key("Enter")
    said = terminal.sees("sane", "icanon", "echo")
    assert "1 Device" not in said, "the application's screen is gone"
    assert "\x1b" not in said
    kept = journeys()[0]
    assert kept.model == str(model)
    assert Checkpoint.open(str(kept.checkpoint)).path.is_relative_to(tmp_path / "out")
