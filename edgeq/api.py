"""The application's API: thin roads from a path or a name to the parts that do the work.

Imported by `edgeq.__getattr__` on first use; each function imports what it needs itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeq.runtimes.session import TextSession


def load(path: str | Path, *, runtime: str = "auto", **options: Any) -> TextSession:
    """Open an artifact with its runtime.

    Args:
        path: a folder that `edgeq export` wrote.
        runtime: the runtime's name; `auto` takes the one the artifact was made for.
        options: the runtime's own; for onnxruntime `context`, `threads`, `chunk`, `spin`.

    Raises:
        EdgeqError: not an artifact, damaged, or its runtime is not installed.
    """
    from edgeq import registry
    from edgeq.artifact import read_artifact

    artifact = read_artifact(path)
    session: Any = registry.runtime(artifact.runtime if runtime == "auto" else runtime).open(artifact, **options)
    return session  # type: ignore[no-any-return]
