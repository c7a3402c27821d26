"""The folder that the demo works in: what it was asked, whether it may be used, what it remembers."""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeq.errors import EdgeqError
from edgeq.files import cannot_write, write_json
from edgeq.measure.bench import Workload

MARKER = "demo.json"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the demo is asked.

    Attributes:
        model: any model edgeq opens; None: SmolLM2-135M-Instruct.
        bits: of the linear weights.
        force: begin anew in a folder that holds something already.
        keep: keep the neutral checkpoint beside the artifact.
    """

    out: Path
    model: str | None = None
    bits: int = 4
    force: bool = False
    keep: bool = True
    workload: Workload = field(default_factory=lambda: Workload(prompt_tokens=(32, 128)))

    @property
    def checkpoint(self) -> Path:
        return self.out / "checkpoint"

    @property
    def artifact(self) -> Path:
        return self.out / "artifact"


def check_folder(settings: Settings) -> str | None:
    """Whether the demo may work in its folder; writes nothing.

    Returns:
        the scheme that an earlier run of the same demo chose there, if it is to be taken up.

    Raises:
        EdgeqError: the folder holds something else, or a demo of other settings; it can't be written to.
    """
    out = settings.out
    there = next(p for p in (out, *out.absolute().parents) if p.exists())
    if not there.is_dir() and there != out:
        raise cannot_write(out, NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
    if there.is_dir() and not os.access(there, os.W_OK):
        raise cannot_write(out, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    if there != out or (settings.force and out.is_dir()):
        return None
    found = _read_marker(out / MARKER)
    if found is None:
        if not out.is_dir() or any(out.iterdir()):
            raise EdgeqError("the output exists already", where=out, hint="Choose another --out")
        return None
    scheme = found.pop("scheme", None)
    if found != _asked(settings):
        asked = f"model {found.get('model') or 'default'}, {found.get('bits')} bits"
        raise EdgeqError(f"this folder holds a demo of {asked}", where=out, hint="Add --force to begin anew")
    return scheme if isinstance(scheme, str) else None


def begin(settings: Settings, scheme: str) -> None:
    """Make the folder ready for the demo in that scheme: what a killed run left half-made goes; with `force`, all.

    Raises:
        EdgeqError: it can't be written.
    """
    try:
        if settings.force:
            _clear(settings)
        settings.out.mkdir(parents=True, exist_ok=True)
        for left in settings.out.glob(f".{settings.artifact.name}.*.partial"):
            shutil.rmtree(left, ignore_errors=True)  # of a killed export
    except OSError as error:
        raise cannot_write(settings.out, error) from error
    write_json(settings.out / MARKER, _asked(settings) | {"scheme": scheme})


def _asked(settings: Settings) -> dict[str, Any]:
    return {"edgeq_demo": 1, "model": settings.model, "bits": settings.bits}


def _read_marker(marker: Path) -> Any:
    try:
        found = json.loads(marker.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and found.get("edgeq_demo") == 1 else None


def _clear(settings: Settings) -> None:
    """Remove what a demo made, and nothing else that may lie in the folder."""
    partial = settings.checkpoint.with_name(settings.checkpoint.name + ".partial")
    for folder in (settings.checkpoint, partial, settings.artifact):
        if folder.exists():
            shutil.rmtree(folder)
