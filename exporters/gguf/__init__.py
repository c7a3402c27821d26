"""GGUF: llama.cpp's file of block-quantized tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from edgeq.artifact import Artifact
from edgeq.errors import EdgeqError
from edgeq.model.spec import ModelSpec
from edgeq.registry import Progress
from edgeq.scheme import Grid


class GgufExporter:
    """`edgeq.registry.Exporter` for llama.cpp. The gguf package is imported when an export begins."""

    name = "gguf"
    about = "llama.cpp and Ollama: nearly any machine"
    reads_back = True
    options = frozenset({"context", "dtype", "ternary_type"})
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {"ternary_type": ("tq2_0", "tq1_0"), "dtype": ("auto", "f32")}

    def refuses(self, grid: Grid) -> str | None:
        """Why no block type stores this grid losslessly, or None when one does."""
        from edgeq.exporters.gguf.storable import refuses

        return refuses(grid)

    def refuses_model(self, spec: ModelSpec) -> str | None:
        """What about the model a GGUF file can't say, or None when all of it can be said."""
        from edgeq.exporters.gguf.expressible import check_expressible

        try:
            check_expressible(spec, spec.max_positions)
        except EdgeqError as error:
            return error.what
        return None

    def export(self, checkpoint: Any, out: Path, *, progress: Progress | None = None, **options: Any) -> Artifact:
        """Write the artifact; options are those of `edgeq.exporters.gguf.export.export`.

        Raises:
            EdgeqError: see there.
        """
        from edgeq.exporters.gguf.export import export

        return export(checkpoint, Path(out), progress=progress, **options)

    def adopt(self, file: Path) -> Artifact | None:
        """A GGUF file of any maker as an artifact; None: this is no such file.

        Raises:
            EdgeqError: see `edgeq.exporters.gguf.adopt.adopt`.
        """
        if file.suffix.lower() != ".gguf":
            return None
        from edgeq.exporters.gguf.adopt import adopt

        return adopt(file)

    def read_back(self, artifact: Artifact, checkpoint: Any, *, progress: Progress | None = None) -> list[str]:
        """What the file, read by edgeq's own reader, does not have as the checkpoint has it; empty: nothing.

        Raises:
            EdgeqError: the file can't be read.
        """
        from edgeq.exporters.gguf.export import FILE
        from edgeq.exporters.gguf.read_back import read_back

        return read_back(artifact.path / FILE, checkpoint, progress=progress)


__all__ = ["GgufExporter"]
