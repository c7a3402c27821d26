"""What a user sees when something is wrong: one line, exit code 2, no traceback unless asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def edgeq(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgeq", *arguments],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nonsense"], "nonsense"),
        (["plan", "--model", "7B", "--no-such-option"], "--no-such-option"),
        (["plan", "--model", "7B", "--context", "many"], "--context"),
        (["plan", "--device", "no-such-device", "--model", "7B"], "no-such-device"),
        (["inspect", "./no/such/folder"], "no/such/folder"),
        (["quantize", "./no/such/folder", "-o", "out"], "no/such/folder"),
        (["export", "./no/such/checkpoint", "-o", "out"], "no/such/checkpoint"),
        (["run", "./no/such/artifact", "hello"], "no/such/artifact"),
        (["bench", "./no/such/artifact"], "no/such/artifact"),
        (["verify", "./no/such/artifact"], "no/such/artifact"),
    ],
    ids=lambda v: v if isinstance(v, str) else v[0],
)
def test_one_clear_line(arguments: list[str], named: str, tmp_path: Path) -> None:
    done = edgeq(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert named in done.stderr
    assert "Traceback" not in done.stderr


def test_debug_shows_the_traceback() -> None:
    done = edgeq("--debug", "inspect", "./no/such/folder")
    assert done.returncode != 0
    assert "Traceback" in done.stderr
