"""Hugging Face folders of quantized models: compressed-tensors, GPTQ and AWQ, for transformers, vLLM and SGLang."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from edgeq.artifact import Artifact
from edgeq.exporters.huggingface.layouts import AwqLayout, CompressedLayout, GptqLayout, Layout
from edgeq.registry import Progress
from edgeq.scheme import Grid


class HuggingFaceExporter:
    """`edgeq.registry.Exporter` of one layout. Needs nothing but numpy."""

    name: ClassVar[str]
    layout: ClassVar[type[Layout]]
    options: ClassVar[frozenset[str]] = frozenset()
    reads_back = True
    layers_only = True

    def refuses(self, grid: Grid) -> str | None:
        """Why the layout can't store this grid losslessly, or None when it can."""
        return None if grid.kind == "float" else self.layout().refuses(grid)

    def export(self, checkpoint: Any, out: Path, *, progress: Progress | None = None, **options: Any) -> Artifact:
        """Write the folder; options are those of `edgeq.exporters.huggingface.export.export`.

        Raises:
            EdgeqError: see there.
        """
        from edgeq.exporters.huggingface.export import export

        return export(checkpoint, Path(out), self.layout(), progress=progress, **options)

    def read_back(self, artifact: Artifact, checkpoint: Any, *, progress: Progress | None = None) -> list[str]:
        """What the folder, read by edgeq's own reader, does not have as the checkpoint has it; empty: nothing.

        Raises:
            EdgeqError: the folder can't be read.
        """
        from edgeq.exporters.huggingface.read_back import read_back

        return read_back(artifact.path, checkpoint, progress=progress)


class CompressedTensorsExporter(HuggingFaceExporter):
    name = "compressed-tensors"
    about = "transformers and vLLM: graphics cards, servers"
    layout = CompressedLayout


class GptqExporter(HuggingFaceExporter):
    name = "gptq"
    about = "transformers, vLLM, SGLang: GPTQ's folder"
    layout = GptqLayout


class AwqExporter(HuggingFaceExporter):
    name = "awq"
    about = "transformers, vLLM, SGLang: AWQ's folder"
    layout = AwqLayout


__all__ = ["AwqExporter", "CompressedTensorsExporter", "GptqExporter"]
