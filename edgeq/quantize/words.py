"""What a run takes and what came of it, in words: rows of a name and what is said of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.amounts import amount, count

if TYPE_CHECKING:
    from edgeq.checkpoint.store import Checkpoint
    from edgeq.model.spec import ModelSpec
    from edgeq.quantize.layout import Needs
    from edgeq.recipe import Recipe

WORST = 5  # layers named at the end
Rows = list[tuple[str, str]]


def needs_rows(
    recipe: Recipe, spec: ModelSpec, needs: Needs, out: Path | None, writing: tuple[float, int] | None = None
) -> Rows:
    """What the run will take; `writing`: seconds and bytes of the calibration text before it."""
    rows = [
        ("model", f"{spec.name}: {count(needs.weights)} weights"),
        ("scheme", recipe.scheme.name),
        ("checkpoint", f"{amount(needs.disk_bytes)}, {needs.disk_bytes * 8 / needs.weights:.2f} bits a weight"),
    ]
    if needs.work_bytes:
        rows.append(("disk besides", f"{amount(needs.work_bytes)} until it ends"))
    rows.append(("memory at the peak", amount(needs.ram_bytes)))
    if needs.seconds:
        rows.append(("time", f"about {duration(needs.seconds)}"))
    if writing is not None:
        rows.append(
            ("calibration text", f"{duration(writing[0])} and {amount(writing[1])} of memory to write it first")
        )
    if out is not None:
        rows.append(("free on the disk", amount(free_bytes(out))))
    return rows


def is_text(what: str) -> bool:
    """Whether a run that says it is at `what` is at its calibration text, and not at a layer yet."""
    return what.endswith("calibration text")


def text_rows(
    what: str, done: int, total: int, layers: int, writing_s: float | None = None, layers_s: float | None = None
) -> Rows:
    """Where a run is that is at its calibration text, and what comes after it.

    Args:
        what, done, total: of its progress, in tokens.
        layers: of the model.
        writing_s, layers_s: seconds that were expected of the text and of the quantizing; None: it was not said.
    """
    about = f"; expected to take {duration(writing_s)}" if writing_s else ""
    own = what.startswith("writing")
    first = "the model writes it itself, so that no data set is needed" if own else "read from what was given"
    then = f"; expected to take {duration(layers_s)}" if layers_s else ""
    rows = [("1 of 2", f"calibration text: {first}"), ("", f"{done:,} of {total:,} tokens{about}")]
    return [*rows, ("2 of 2", f"{layers} layers, each quantized by what it does to that text{then}")]


def free_bytes(out: Path) -> int:
    """Free on the disk where `out` lies or will lie."""
    place = next(p for p in (out, *out.absolute().parents) if p.exists())
    return shutil.disk_usage(place).free


def made_rows(made: Checkpoint) -> Rows:
    """What came out, and what it took beside what was predicted."""
    from edgeq.model.tensors import parameters
    from edgeq.quantize.report import read_report

    weights = parameters(made.spec)
    rows = [
        ("checkpoint", str(made.path)),
        ("scheme", made.scheme.name),
        ("size", f"{amount(made.total_bytes)}, {made.weight_bytes * 8 / weights:.2f} bits a weight"),
    ]
    if made.manifest.calibration is not None:
        rows.append(("calibration", calibration_line(made.manifest.calibration)))
    report = read_report(made.path)
    if report is not None:
        p = report.predicted
        rows.append(("took", f"{duration(report.seconds)}{_beside(duration(p.seconds) if p.seconds else '')}"))
        if report.peak_rss_bytes:
            rows.append(("memory at the peak", f"{amount(report.peak_rss_bytes)}{_beside(amount(p.ram_bytes))}"))
        rows.append(("disk", f"{amount(report.disk_bytes)}{_beside(amount(p.disk_bytes))}"))
        stacks = {x.name.rpartition(".")[0] for x in report.layers}  # whose experts are listed one by one
        fallen = [layer.name for layer in report.layers if layer.fallback and layer.name not in stacks]
        if fallen:
            more = ", ..." if len(fallen) > 3 else ""
            rows.append(("fell back", f"{len(fallen)} of {len(report.layers)} layers: {', '.join(fallen[:3])}{more}"))
    errors = [(n, t.error) for n, t in made.manifest.tensors.items() if t.error is not None]
    worst = sorted(errors, key=lambda item: -item[1])[:WORST]
    if worst:
        rows.append(("worst relative errors", ", ".join(f"{n} {error:.3f}" for n, error in worst)))
    return rows


def calibration_line(facts: dict[str, Any]) -> str:
    """Where the text came from and how much of it there was."""
    kinds = {"self": "written by the model itself", "given": "given by the caller"}
    where = kinds.get(str(facts.get("kind")), str(facts.get("name", "")))
    parts = [f"{facts.get('tokens', 0):,} tokens", where, facts.get("used"), facts.get("note")]
    return "; ".join(str(p) for p in parts if p)


def rate(speed: float | None, what: str) -> str:
    """Work in a second: tokens of text, else millions of weights."""
    if not speed:
        return ""
    return f"{speed:,.0f} tokens/s" if "text" in what else f"{count(speed)} weights/s"


def duration(seconds: float) -> str:
    """`8.2 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _beside(predicted: str) -> str:
    return f" (predicted {predicted})" if predicted else ""
