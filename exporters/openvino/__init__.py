"""Export to OpenVINO: a stateful model with compressed weights, for its runtime, openvino-genai and optimum-intel."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from edgeq.artifact import Artifact
from edgeq.registry import Progress
from edgeq.scheme import Grid


class OpenVinoExporter:
    """`edgeq.registry.Exporter` for OpenVINO, which is imported when an export begins."""

    name = "openvino"
    options = frozenset({"context", "device", "dynamic_quantization", "kv_dtype"})
    choices: ClassVar[Mapping[str, tuple[str | None, ...]]] = {
        "device": ("cpu", "gpu", "npu"),
        "kv_dtype": (None, "u8", "u4", "bf16", "f16", "f32"),  # the default is the device's
    }
    about = "OpenVINO: Intel's processors, graphics and NPUs"

    def refuses(self, grid: Grid) -> str | None:
        """Why this grid can't be stored losslessly for fast kernels, or None when it can."""
        from edgeq.exporters.openvino.storable import refuses  # here: planning asks exporters and loads no numpy

        return refuses(grid)

    def export(self, checkpoint: Any, out: Path, *, progress: Progress | None = None, **options: Any) -> Artifact:
        """Write the artifact; options are those of `edgeq.exporters.openvino.export.export`.

        Raises:
            EdgeqError: see there.
        """
        from edgeq.exporters.openvino.export import export

        return export(checkpoint, Path(out), progress=progress, **options)

    def read_back(self, artifact: Artifact, checkpoint: Any, *, progress: Progress | None = None) -> list[str]:
        """What the file, read and computed by OpenVINO, does not have as the checkpoint has it; empty: nothing.

        Raises:
            EdgeqError: the file can't be read.
        """
        from edgeq.exporters.openvino.export import FILE
        from edgeq.exporters.openvino.read_back import read_back

        return read_back(artifact.path / FILE, checkpoint, progress=progress)


__all__ = ["OpenVinoExporter"]
