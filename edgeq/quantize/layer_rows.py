"""The layers of a checkpoint as rows for people: what was written of each matrix, how well, in what time."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgeq.checkpoint.manifest import StoredTensor
from edgeq.checkpoint.store import Checkpoint
from edgeq.quantize.layout import stored_bytes
from edgeq.quantize.report import MatrixReport, read_report

_LAYER = re.compile(r"layers\.(\d+)\.(.+)")


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One quantized matrix.

    Attributes:
        layer, role: of `layers.3.down` 3 and `down`; of `embed` and `head` None and the name.
        grid: in words.
        bits: written of a weight, scales and zero points included.
        weight_error: ||W - Q|| / ||W||.
        error_before, error_after: relative squared error of the output, rounded to nearest and as stored; None for a
            method without text.
        fallback: why something simpler than the method's answer was stored.
        seconds: None where it was not timed.
    """

    name: str
    layer: int | None
    role: str
    grid: str
    bits: float
    weight_error: float
    error_before: float | None
    error_after: float | None
    fallback: str | None
    seconds: float | None

    @property
    def error(self) -> float:
        """What judges it best: the error of its output where that is known, else of its weights, squared alike."""
        return self.weight_error**2 if self.error_after is None else self.error_after


def layer_rows(checkpoint: Checkpoint) -> list[LayerRow]:
    """The quantized matrices in the order of the model."""
    report = read_report(checkpoint.path)
    known = {} if report is None else {layer.name: layer for layer in report.layers}
    stored = checkpoint.manifest.tensors
    return [_row(name, t, known.get(name)) for name, t in stored.items() if t.error is not None]


def _row(name: str, stored: StoredTensor, known: MatrixReport | None) -> LayerRow:
    found = _LAYER.fullmatch(name)
    rows, columns = stored.matrix
    judged = stored.report
    grid = stored.grid
    words = known.grid if known is not None else f"{grid.ggml_type or grid.codebook or f'int{grid.bits}'}"
    return LayerRow(
        name=name,
        layer=int(found[1]) if found else None,
        role=found[2] if found else name,
        grid=words,
        bits=stored_bytes(stored) * 8 / (rows * columns),
        weight_error=stored.error or 0.0,
        error_before=None if judged is None else judged.error_before,
        error_after=None if judged is None else judged.error_after,
        fallback=None if judged is None else judged.fallback,
        seconds=None if known is None else known.seconds,
    )
