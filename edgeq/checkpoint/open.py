"""One door for everything that holds a model's tensors."""

from __future__ import annotations

from pathlib import Path

from edgeq.checkpoint.manifest import MANIFEST
from edgeq.checkpoint.store import Checkpoint
from edgeq.checkpoint.weights import Weights


def open_weights(ref: str | Path) -> Weights:
    """A neutral checkpoint, or a source model (folder, GGUF file or hub id) whose weights are still floats.

    Raises:
        EdgeqError: nothing there, or nothing that holds weights.
    """
    folder = Path(ref).expanduser()
    if (folder / MANIFEST).is_file():
        return Checkpoint.open(folder)
    from edgeq.model.weights import open_source

    return open_source(ref)
