"""`read_model`: what the user typed becomes a ModelSpec."""

from __future__ import annotations

import re
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from edgeq.errors import EdgeqError
from edgeq.model import catalog
from edgeq.model.spec import ModelSpec

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


def read_model(ref: str, *, revision: str | None = None, offline: bool = False) -> ModelSpec:
    """The architecture of a model; never loads a weight.

    Args:
        ref: a folder with a config.json, a .gguf file, a size class (`7B`, `30B-A3B`), the short name of a
            well-known model (`llama-3.1-8b`), or a hub id (`org/name`).
        revision: a branch, tag or commit of a hub id.
        offline: use only what is on this machine.

    Raises:
        EdgeqError: there is no such model, it can't be reached, or its description is damaged or contradicts itself.
    """
    ref = ref.strip()
    path = Path(ref).expanduser()
    if _exists(path):
        return read_path(path)
    known = catalog.find(ref)
    if known is not None and "/" not in ref:
        return replace(known, name=ref)
    if _HUB_ID.fullmatch(ref) and ".gguf" not in ref.lower():
        return _from_hub(ref, revision, offline, known)
    raise _nothing(ref, path)


def read_path(path: Path) -> ModelSpec:
    """The architecture of a local folder or GGUF file."""
    if path.is_dir():
        from edgeq.model.folder import read_folder

        return read_folder(path)
    if path.suffix.lower() == ".gguf":
        from edgeq.model.gguf_spec import read_gguf

        return read_gguf(path)
    if path.name == "config.json":
        return read_path(path.parent)
    raise EdgeqError("not a model", where=path, hint="Give a folder with a config.json, or a .gguf file")


def _from_hub(ref: str, revision: str | None, offline: bool, known: ModelSpec | None) -> ModelSpec:
    from edgeq.model.hub import Unreachable, read_hub

    try:
        return read_hub(ref, revision=revision, offline=offline)
    except Unreachable:
        if known is None or revision is not None:
            raise
        return replace(known, name=ref)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long, or with a null byte
        return False


def _nothing(ref: str, path: Path) -> EdgeqError:
    if path.suffix.lower() == ".gguf" or ref.startswith((".", "/", "~")) or len(path.parts) > 2:
        return EdgeqError("no such file or folder", where=ref)
    names = [*catalog.size_classes(), *(m.name for m in catalog.known_models())]
    lowered = {n.lower(): n for n in names}
    close = [lowered[n] for n in get_close_matches(ref.lower(), lowered, n=3)]
    hint = (
        f"Did you mean {', '.join(close)}?" if close else "Give a folder, a .gguf file, a hub id or a size such as 7B"
    )
    return EdgeqError(f"no model named {ref[:80]!r}", hint=hint)
