"""The report of a run: what each layer cost and how it came out, and what was predicted beside what it took.

It lies beside the manifest and is no part of the checkpoint: two runs that give the same bytes take different times.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgeq.checkpoint.manifest import LayerReport, StoredTensor
from edgeq.errors import EdgeqError
from edgeq.files import write_json
from edgeq.jsonable import from_json, to_json
from edgeq.model.safetensors_file import load_json
from edgeq.quantize.journal import Done
from edgeq.quantize.layout import Needs
from edgeq.scheme import Grid

REPORT = "report.json"


@dataclass(frozen=True, slots=True)
class MatrixReport:
    """One quantized matrix.

    Attributes:
        grid: in words, e.g. `int4 g32`.
        bits: of a code.
        error: ||W - Q|| / ||W||.
        error_before, error_after: relative squared errors of the output (see `LayerReport`); None without text.
        seconds: None where it was not timed.
        tokens: of an expert: how many the calibration text gave it.
    """

    name: str
    grid: str
    bits: int
    error: float | None
    error_before: float | None = None
    error_after: float | None = None
    fallback: str | None = None
    seconds: float | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class RunReport:
    """Attributes:
    predicted: before the start.
    seconds: of all steps, those of runs that were interrupted included.
    peak_rss_bytes: of this process, in all its life; 0: not known here.
    disk_bytes: of the checkpoint.
    layers: in the order of the model; of experts first all of a role, then each.
    blocks: shard -> mean squared error of its block's output `before` and `after` the refinement.
    """

    predicted: Needs
    seconds: float
    peak_rss_bytes: int
    disk_bytes: int
    layers: tuple[MatrixReport, ...] = ()
    blocks: dict[str, dict[str, float]] = field(default_factory=dict)


def read_report(folder: Path) -> RunReport | None:
    """The report that lies in a checkpoint; None: there is none, or it can't be read."""
    path = folder / REPORT
    try:
        return from_json(RunReport, load_json(path.read_bytes(), path), path)
    except (OSError, EdgeqError):
        return None


def write_report(
    folder: Path, predicted: Needs, seconds: float, tensors: Mapping[str, StoredTensor], done: Mapping[str, Done]
) -> RunReport:
    """Write the report of a run that ends."""
    layers = tuple(_layers(tensors, done))
    blocks = {name: d.block for name, d in done.items() if d.block}
    size = sum(d.file.bytes for d in done.values())
    report = RunReport(predicted, round(seconds, 3), peak_rss(), size, layers, blocks)
    write_json(folder / REPORT, to_json(report))
    return report


def peak_rss() -> int:
    """Bytes of memory this process had at its peak; 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        import psutil

        return int(getattr(psutil.Process().memory_info(), "peak_wset", 0))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _layers(tensors: Mapping[str, StoredTensor], done: Mapping[str, Done]) -> Iterable[MatrixReport]:
    for name, stored in tensors.items():
        if stored.error is None:
            continue
        shard, grid = done[stored.shard], stored.grid
        yield _matrix(name, grid, stored.error, stored.report, shard.seconds.get(name))
        for e in range(stored.shape[0] if len(stored.shape) == 3 else 0):
            one = f"{name}.{e}"
            if one in shard.reports:
                yield _matrix(one, grid, shard.errors.get(one), shard.reports[one], shard.seconds.get(one))


def _matrix(
    name: str, grid: Grid, error: float | None, judged: LayerReport | None, seconds: float | None
) -> MatrixReport:
    words = f"{grid.ggml_type or grid.codebook or grid.kind}{grid.bits if grid.kind == 'int' else ''}"
    words += "" if grid.group_size == -1 or grid.ggml_type else f" g{grid.group_size}"
    if judged is None:
        return MatrixReport(name, words, grid.bits, error, seconds=seconds)
    before, after, fallback = judged.error_before, judged.error_after, judged.fallback
    return MatrixReport(name, words, grid.bits, error, before, after, fallback, seconds, judged.tokens)
