"""Reading what a system says about itself: missing files and commands give nothing, never an error."""

from __future__ import annotations

import subprocess
from pathlib import Path


def read_text(path: Path) -> str:
    """The file's text, or an empty string when it can't be read."""
    try:
        return path.read_text(errors="replace")
    except (OSError, ValueError):
        return ""


def read_int(path: Path, base: int = 10) -> int | None:
    try:
        return int(read_text(path).strip(), base)
    except ValueError:
        return None


def output(command: list[str], timeout: float = 5.0) -> str:
    """What a command prints, or an empty string when it is missing, fails or takes too long."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=timeout, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout if done.returncode == 0 else ""
