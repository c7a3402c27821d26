"""Export to ONNX for onnxruntime and onnxruntime-genai: a graph of fused operators, weights in external data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeq.artifact import Artifact
from edgeq.exporters.onnx.grids import refuses
from edgeq.registry import Progress
from edgeq.scheme import Grid


class OnnxExporter:
    """`edgeq.registry.Exporter` for onnxruntime. onnx itself is imported when an export begins."""

    name = "onnx"
    options = frozenset({"accuracy_level", "activation_scales", "context", "kv_dtype", "kv_text"})

    def refuses(self, grid: Grid) -> str | None:
        """Why this grid can't be stored losslessly for fast kernels, or None when it can."""
        return refuses(grid)

    def export(self, checkpoint: Any, out: Path, *, progress: Progress | None = None, **options: Any) -> Artifact:
        """Write the artifact; options are those of `edgeq.exporters.onnx.export.export`.

        Raises:
            EdgeqError: see there.
        """
        from edgeq.exporters.onnx.export import export

        return export(checkpoint, Path(out), progress=progress, **options)


__all__ = ["OnnxExporter"]
