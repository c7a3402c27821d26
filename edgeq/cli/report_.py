"""`edgeq report`: bits, error and time of a checkpoint's layers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeq.amounts import amount

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from edgeq.checkpoint.store import Checkpoint
    from edgeq.quantize.heat import Heat
    from edgeq.quantize.layer_rows import LayerRow

WORST = 8
CELL = 6  # characters


def command(
    checkpoint: Annotated[Path, typer.Argument(help="A folder that `edgeq quantize` made.")],
    show_all: Annotated[bool, typer.Option("--all", help="A line for every matrix, not only for the worst.")] = False,
    picture: Annotated[Path | None, typer.Option(help="Also draw it: FILE.svg, or FILE.png with cairosvg.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """What was written of each layer of a checkpoint, how far it is off, and how long it took."""
    from rich.console import Console

    from edgeq.checkpoint.store import Checkpoint
    from edgeq.quantize.layer_rows import layer_rows

    made = Checkpoint.open(checkpoint)
    rows = layer_rows(made)
    if picture is not None:
        from edgeq.quantize.picture import write_picture

        write_picture(picture, made, rows)
    if as_json:
        print(json.dumps(_json(made, rows), indent=2))
        return
    console = Console()
    print_summary(console, made, rows)
    print_heat(console, rows)
    print_rows(console, rows if show_all else sorted(rows, key=lambda r: -r.error)[:WORST], show_all=show_all)
    if picture is not None:
        console.print(f"[dim]The picture is {picture}.[/]", highlight=False)


def _json(made: Checkpoint, rows: Sequence[LayerRow]) -> dict[str, Any]:
    from edgeq.jsonable import to_json
    from edgeq.quantize.report import read_report

    run = read_report(made.path)
    return {
        "model": made.spec.name,
        "scheme": made.scheme.name,
        "bytes": made.total_bytes,
        "calibration": made.manifest.calibration,
        "predicted": None if run is None else to_json(run.predicted),
        "seconds": None if run is None else run.seconds,
        "peak_rss_bytes": None if run is None else run.peak_rss_bytes,
        "blocks": {} if run is None else run.blocks,
        "layers": to_json(rows),
    }


def print_summary(console: Console, made: Checkpoint, rows: Sequence[LayerRow]) -> None:
    """Model, scheme and size; what the steps of the method gained; where it fell back."""
    from rich.markup import escape

    from edgeq.quantize.words import calibration_line

    size = amount(made.total_bytes)
    console.print(f"[bold]{escape(made.spec.name)}[/]  {escape(made.scheme.name)}  {size}", highlight=False)
    if made.manifest.calibration is not None:
        console.print(f"[dim]{escape(calibration_line(made.manifest.calibration))}[/]", highlight=False)
    judged = [r for r in rows if r.error_before and r.error_after is not None]
    if judged:
        gain = sorted((r.error_after or 0) / (r.error_before or 1) for r in judged)[len(judged) // 2]
        fallen = sum(r.fallback is not None for r in rows)
        console.print(
            f"output error over that of rounding to nearest: median {gain:.2f}; {fallen} of {len(rows)} fell back",
            highlight=False,
        )


def print_heat(console: Console, rows: Sequence[LayerRow]) -> None:
    """A line a layer, a column a role: error, then bits where they differ. Several lines where it is too narrow."""
    from rich.text import Text

    from edgeq.quantize.heat import axes, heats

    layers, roles = axes(rows)
    for heat in heats(rows):
        if heat.low == heat.high:
            console.print(f"\n{heat.title}: {heat.show(heat.low)} everywhere", highlight=False)
            continue
        console.print(
            f"\n[bold]{heat.title}[/]  [dim]{heat.show(heat.low)} to {heat.show(heat.high)}[/]", highlight=False
        )
        console.print(Text("      " + "".join(f"{_short(role):>{CELL}}" for role in roles), "dim"))
        for layer in layers:
            line = Text(f"{layer:>5} ", "dim")
            for role in roles:
                line.append(*_cell(heat, heat.cells.get((layer, role))))
            console.print(line)


def _short(role: str) -> str:
    """A role's name in a cell: `x.gate` of `experts_gate`, `s.gate` of `shared_gate`."""
    return role.replace("experts_", "x.").replace("shared_", "s.")[: CELL - 1]


def _cell(heat: Heat, value: float | None) -> tuple[str, str]:
    from edgeq.quantize.heat import dark

    if value is None:
        return " " * CELL, ""
    colour = heat.colour(value)
    letters = "white" if dark(colour) else "black"
    return f"{heat.show(value):>{CELL - 1}} ", f"{letters} on rgb({','.join(map(str, colour))})"


def print_rows(console: Console, rows: Sequence[LayerRow], *, show_all: bool) -> None:
    """The table of matrices."""
    from rich.markup import escape
    from rich.table import Table

    from edgeq.quantize.heat import percent

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", title_justify="left", title_style="bold")
    table.title = "\nall matrices" if show_all else f"\nthe {len(rows)} furthest off"
    fallen = any(r.fallback for r in rows)
    for name in ("matrix", "grid"):
        table.add_column(name, no_wrap=True)
    for name in ("bits", "weights %", "before %", "after %", "seconds"):
        table.add_column(name, justify="right")
    if fallen:
        table.add_column("fell back", overflow="fold")
    for r in rows:
        errors = ("" if e is None else percent(e) for e in (r.weight_error, r.error_before, r.error_after))
        seconds = "" if r.seconds is None else f"{r.seconds:.1f}"
        why = [escape(r.fallback or "")] if fallen else []
        table.add_row(r.name, r.grid, f"{r.bits:.2f}", *errors, seconds, *why)
    console.print(table, highlight=False)
    console.print(
        "[dim]weights: ||W - Q|| / ||W||; before, after: squared error of the output, to nearest and as stored[/]"
    )
