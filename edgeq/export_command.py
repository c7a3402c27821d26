"""An export as what a person types, and where it will lie."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def default_out(checkpoint: str, to: str) -> Path:
    """`CHECKPOINT-onnx`, beside the checkpoint."""
    path = Path(checkpoint).expanduser()
    if path.exists():
        path = path.resolve()
        return path.with_name(f"{path.name if path.is_dir() else path.stem}-{to}")
    return Path(f"{path.name}-{to}")


def command_line(checkpoint: str, to: str, options: Mapping[str, Any], out: Path) -> str:
    """The `edgeq export` that does this."""
    given = [word for name, value in options.items() for word in (flag(name), str(value))]
    return shlex.join(["edgeq", "export", checkpoint, "--to", to, *given, "-o", str(out)])
