"""What of a model is quantized so far: from the journal while a run goes on, from the checkpoint when it is done."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeq.checkpoint.manifest import MANIFEST, LayerReport
from edgeq.checkpoint.store import Checkpoint
from edgeq.errors import EdgeqError
from edgeq.quantize.journal import NAME, Done, lines
from edgeq.quantize.layer_rows import layer_rows

_LAYER = re.compile(r"layers\.(\d+)\.(.+)")


@dataclass(frozen=True, slots=True)
class MatrixDone:
    """One quantized matrix.

    Attributes:
        layer, role: of `layers.3.down` 3 and `down`; of `embed` and `head` None and the name.
        error: relative squared error of its output where calibration text gave it inputs, else of its weights.
        fallback: why something simpler than the method's answer was stored; None: it was not.
        seconds: None where it was not timed.
    """

    name: str
    layer: int | None
    role: str
    error: float
    fallback: str | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class LayerError:
    """A layer's matrices together, in percent: mean and worst of their errors, and which one is the worst."""

    layer: int
    mean: float
    worst: float
    role: str


def matrices_done(out: Path) -> list[MatrixDone]:
    """The matrices of `out` that are quantized, in the order of the model; of a run that goes on, so far.

    What another recipe left in the same place is not among them.
    """
    partial = out.with_name(f"{out.name}.partial") / NAME
    if partial.exists():
        noted = lines(partial)
        return [m for done in noted if done.fingerprint == noted[-1].fingerprint for m in _of_journal(done)]
    try:
        rows = layer_rows(Checkpoint.open(out)) if (out / MANIFEST).is_file() else []
    except EdgeqError:
        return []
    return [MatrixDone(r.name, r.layer, r.role, r.error, r.fallback, r.seconds) for r in rows]


def layer_errors(done: Iterable[MatrixDone]) -> list[LayerError]:
    """Of each layer that has quantized matrices, in order."""
    by_layer: dict[int, list[MatrixDone]] = {}
    for matrix in done:
        if matrix.layer is not None:
            by_layer.setdefault(matrix.layer, []).append(matrix)
    found = []
    for layer, members in sorted(by_layer.items()):
        worst = max(members, key=lambda m: m.error)
        mean = 100 * sum(m.error for m in members) / len(members)
        found.append(LayerError(layer, mean, 100 * worst.error, worst.role))
    return found


def place(what: str) -> tuple[int, str] | None:
    """Layer and matrix that a run's progress names (`layers.3.down`); None: it is at something else."""
    found = _LAYER.fullmatch(what)
    return (int(found[1]), found[2]) if found else None


def _of_journal(done: Done) -> list[MatrixDone]:
    return [_matrix(name, error, done.reports, done.seconds) for name, error in _stored(done.errors)]


def _stored(errors: Mapping[str, float]) -> Iterable[tuple[str, float]]:
    """Without the experts of a stack, each of which a journal lists beside it."""
    for name, error in errors.items():
        stack, _, last = name.rpartition(".")
        if not (last.isdigit() and stack in errors):
            yield name, error


def _matrix(name: str, error: float, reports: Mapping[str, LayerReport], seconds: Mapping[str, float]) -> MatrixDone:
    judged, at = reports.get(name), place(name)
    layer, role = at if at is not None else (None, name)
    squared = error**2 if judged is None else judged.error_after
    return MatrixDone(name, layer, role, squared, None if judged is None else judged.fallback, seconds.get(name))


def percent(error: float) -> str:
    """`0.620%` of a share; three digits are enough to compare layers."""
    value = 100 * error
    return f"{value:.0f}%" if value >= 99.95 else f"{value:#.3g}%"
