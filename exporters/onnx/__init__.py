"""Export to ONNX for onnxruntime and onnxruntime-genai: a graph of fused operators, weights in external data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from edgeq.artifact import Artifact
from edgeq.registry import Progress
from edgeq.scheme import Grid


class OnnxExporter:
    """`edgeq.registry.Exporter` for onnxruntime. onnx itself is imported when an export begins."""

    name = "onnx"
    options = frozenset(
        {
            "accuracy_level",
            "activation_scales",
            "context",
            "dialect",
            "dtype",
            "format",
            "kv_buffer",
            "kv_dtype",
            "kv_text",
            "pack",
        }
    )
    about = "onnxruntime: any processor, phones too"
    choices: ClassVar[Mapping[str, tuple[str | int, ...]]] = {
        "dialect": ("contrib", "standard"),
        "dtype": ("float32", "float16"),
        "format": ("onnx", "ort"),
        "kv_buffer": ("growing", "shared"),
        "kv_dtype": ("f32", "int8", "int4", "f16"),
        "pack": ("fast", "small"),
        "accuracy_level": (4, 0),
        "activation_scales": ("token", "tensor"),
    }

    def refuses(self, grid: Grid) -> str | None:
        """Why this grid can't be stored losslessly, or None when it can, if only for slow unpacking."""
        from edgeq.exporters.onnx.grids import refuses

        return refuses(grid)

    def export(self, checkpoint: Any, out: Path, *, progress: Progress | None = None, **options: Any) -> Artifact:
        """Write the artifact; options are those of `edgeq.exporters.onnx.export.export`.

        Raises:
            EdgeqError: see there.
        """
        from edgeq.exporters.onnx.export import export

        return export(checkpoint, Path(out), progress=progress, **options)

    def read_back(self, artifact: Artifact, checkpoint: Any, *, progress: Progress | None = None) -> list[str]:
        """What of the written model is not what the checkpoint says, in words; empty when every weight is the same.

        Raises:
            EdgeqError: the files can't be read at all.
        """
        from edgeq.exporters.onnx.read_back import read_back

        return read_back(artifact.path, checkpoint, progress=progress)


__all__ = ["OnnxExporter"]
