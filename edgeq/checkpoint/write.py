"""What every writer of checkpoints does alike, beside the shards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgeq import __version__
from edgeq.artifact import sha256
from edgeq.checkpoint.manifest import FileEntry
from edgeq.checkpoint.store import TOKENIZER
from edgeq.errors import EdgeqError
from edgeq.files import write_bytes


def write_tokenizer(files: Mapping[str, Path | bytes], model: str, folder: Path) -> dict[str, FileEntry]:
    """Copy a source's tokenizer files into the checkpoint's folder; their entries for the manifest.

    Raises:
        EdgeqError: a file's name is none, or it can't be written.
    """
    found = {}
    for name, content in files.items():
        if Path(name).name != name:
            raise EdgeqError(f"a tokenizer file can't be named {name!r}", where=model)
        path = folder / TOKENIZER / name
        write_bytes(path, content if isinstance(content, bytes) else content.read_bytes())
        found[f"{TOKENIZER}/{name}"] = FileEntry(path.stat().st_size, sha256(path))
    return found


def versions() -> dict[str, str]:
    """Of what decides about a checkpoint's bytes."""
    return {"edgeq": __version__, "numpy": np.__version__}
