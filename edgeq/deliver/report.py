"""The report of a delivery: what was chosen and why, how it was made, proved and measured, and how to do it again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgeq import __version__
from edgeq.artifact import check_sums
from edgeq.benchmark import Benchmark, Promise
from edgeq.checkpoint.store import Checkpoint
from edgeq.deliver.again import commands, recipe_of
from edgeq.deliver.choice import Choice, choice_of
from edgeq.deliver.delivery import Delivery, Rows, rows
from edgeq.deliver.ways import Way
from edgeq.errors import EdgeqError
from edgeq.files import write_bytes
from edgeq.jsonable import to_json
from edgeq.quantize.layer_rows import LayerRow, layer_rows
from edgeq.quantize.words import made_rows

WORST = 10  # matrices that are listed


@dataclass(frozen=True, slots=True)
class Report:
    """Attributes:
    date: of the report, UTC.
    rows: what there is to say of the artifact, a name and a sentence each.
    files: name -> bytes and sha256, compared when the report was made.
    choice: device, model and what the plan says; None: the device or the checkpoint can't be read now.
    recipe: TOML; None: it is not known.
    quantization: rows of what it took beside what was predicted.
    worst: the matrices that are furthest off, the worst first.
    verify: the proof, as the manifest keeps it.
    commands: that make and measure it again.
    absent: what could not be said, and why.
    """

    title: str
    date: str
    edgeq: str
    rows: Rows
    files: dict[str, dict[str, Any]]
    choice: Choice | None
    recipe: str | None
    quantization: Rows
    worst: list[LayerRow]
    verify: dict[str, Any]
    benchmark: Benchmark | None
    promise: Promise | None
    ways: tuple[Way, ...]
    commands: tuple[str, ...]
    absent: list[str]


def make_report(found: Delivery) -> Report:
    """Reads every file of the artifact once, to compare it with its checksum.

    Raises:
        EdgeqError: a file is not as it was exported.
    """
    artifact, absent = found.artifact, []
    check_sums(artifact)
    try:
        made = _checkpoint(artifact.checkpoint)
    except EdgeqError as error:
        made, why = None, error.line
        absent.append(f"How it was quantized: {why}")
    recipe = None if made is None else recipe_of(made)
    choice = None
    if made is not None:
        try:
            choice = choice_of(found, made.spec)
        except EdgeqError as error:
            absent.append(f"What the plan says: {error.line}")
    matrices = [] if made is None else sorted(layer_rows(made), key=lambda r: -r.error)[:WORST]
    return Report(
        title=found.title,
        date=datetime.now(UTC).isoformat("T", "seconds"),
        edgeq=__version__,
        rows=rows(found),
        files=artifact.files,
        choice=choice,
        recipe=None if recipe is None else recipe.to_toml(),
        quantization=[] if made is None else made_rows(made),
        worst=matrices,
        verify=artifact.verify,
        benchmark=found.benchmark,
        promise=found.promise,
        ways=found.ways,
        commands=tuple(commands(found, made, recipe)),
        absent=absent,
    )


def default_place(found: Delivery) -> Path:
    """Beside the artifact: `NAME-report.md`."""
    place = found.place.absolute()
    return place.with_name(f"{place.name}-report.md")


def write_report(report: Report, place: Path) -> None:
    """Whole or not at all, as Markdown, or as JSON where the name ends so.

    Raises:
        EdgeqError: the place can't be written.
    """
    from edgeq.deliver.markdown import markdown

    if place.suffix.lower() == ".json":
        text = json.dumps(to_json(report), indent=2, ensure_ascii=False) + "\n"
    else:
        text = "\n".join(markdown(report)) + "\n"
    try:
        write_bytes(place, text.encode("utf-8", "backslashreplace"))
    except EdgeqError as error:
        raise EdgeqError(error.what, where=error.where, hint="Choose another place for the report") from error


def _checkpoint(origin: str | None) -> Checkpoint:
    """Raises:
    EdgeqError: the manifest names none, it is gone, or it is a model that was not quantized.
    """
    if origin is None:
        raise EdgeqError("the manifest names no checkpoint")
    return Checkpoint.open(origin)


def not_told(report: Report) -> Iterator[str]:
    """What a reader would look for and not find."""
    yield from report.absent
    if not report.verify:
        yield "The proof: the artifact was not compared with its checkpoint; `edgeq verify` does it"
    if report.benchmark is None:
        yield "Its speed: it was not measured on this machine; `edgeq bench` does it"
