"""Artifacts side by side: what each is, and tables of at most 80 columns with ratios to the first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeq.amounts import amount
from edgeq.measure.bench_words import versus
from edgeq.measure.compare import short_names

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from edgeq.measure.compare import Comparison, Ratio, Side

COLUMNS = 3  # artifacts of a table: the first, and two more
NAME = 12  # characters of a name at the head of a column
Cells = tuple[str, str]  # a figure, and how many times the first one's it is
SAME = "≈"  # the rounds do not agree on which is more


def render(found: Comparison, console: Console) -> None:
    """What was compared, the tables, what came out."""
    from rich.markup import escape

    console.print(f"[dim]{escape(found.device)}[/]", highlight=False)
    for line in legend(found):
        console.print(line, highlight=False, soft_wrap=True)
    for table in tables(found):
        console.print(table)
    console.print(f"[bold]{escape(versus(found, names(found)))}[/]", highlight=False)
    console.print(f"[dim]{how(found)}[/]", highlight=False)
    for doubt in found.warnings:
        console.print(f"[yellow]! {escape(doubt)}[/]", highlight=False)


def names(found: Comparison) -> list[str]:
    """Short and different from each other."""
    return short_names([(s.benchmark.artifact, s.benchmark.target.partition("/")[0]) for s in found.sides])


def legend(found: Comparison) -> list[Text]:
    """A line an artifact: its name in the tables, what it is, where it lies."""
    from rich.text import Text

    lines = []
    for name, side in zip(names(found), found.sides, strict=True):
        one = side.benchmark
        what = f"{one.target}, {one.scheme}, {amount(one.artifact_bytes)}"
        lines.append(Text.assemble((f"{_short(name):{NAME}}", "bold"), f"  {what}  ", (Path(one.artifact).name, "dim")))
    return lines


def how(found: Comparison) -> str:
    """How the figures came about, and what `≈` says."""
    turns = " ".join("ABCDEFGH"[: len(found.sides)])
    way = f"Measured in {len(found.rounds)} rounds of turns ({turns} {turns} ...)" if found.rounds else "Measured apart"
    lengths = {s.benchmark.decode.tokens for s in found.sides}
    unlike = " Not of the same lengths." if len(lengths) > 1 else ""
    return f"{way}.{unlike} ×: times the first one's; {SAME}: the runs differ on which is more."


def tables(found: Comparison) -> list[Table]:
    """Figures down, artifacts across: the first in each table, and at most two others."""
    heads, others = names(found), range(1, len(found.sides))
    step = COLUMNS - 1
    return [_table(found, heads, [0, *others[at : at + step]]) for at in range(0, len(others), step)]


def _table(found: Comparison, heads: Sequence[str], which: Sequence[int]) -> Table:
    from rich.table import Table

    sides = [found.sides[i] for i in which]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("")
    for at, i in enumerate(which):
        table.add_column(_short(heads[i]), justify="right", no_wrap=True)
        if at:
            table.add_column("", justify="right", no_wrap=True)
    first = sides[0].benchmark
    table.add_row(f"decode {first.decode.tokens}, tok/s", *_row(sides, _decode), style="bold")
    for at, length in enumerate(p.tokens for p in first.prefill):
        table.add_row(f"prefill {length}, tok/s", *_row(sides, lambda s, n=length: _prefill(s, n)))  # type: ignore[misc]
        if at == len(first.prefill) - 1:
            table.add_row(f"first word at {length}, s", *_row(sides, lambda s, n=length: (_ttft(s, n), "")))  # type: ignore[misc]
    table.add_row("start, s", *_row(sides, _start))
    table.add_row("peak memory, MiB", *_row(sides, _peak))
    if any(s.likeness for s in sides):
        table.add_row("KL divergence", *_row(sides, _kl))
        table.add_row("same likeliest", *_row(sides, _top1))
        table.add_row("  compared with", *_row(sides, _of))
    return table


def _row(sides: Sequence[Side], cells: Callable[[Side], Cells]) -> list[str]:
    """The first one's figure; of the others the ratio too, in a column of its own."""
    first, *others = (cells(side) for side in sides)
    return [first[0], *(cell for two in others for cell in two)]


def _decode(side: Side) -> Cells:
    return f"{side.benchmark.decode.tps.median:,.1f}", _times(side.decode)


def _prefill(side: Side, length: int) -> Cells:
    for one, against in zip(side.benchmark.prefill, side.prefill, strict=True):
        if one.tokens == length:
            return f"{one.tps.median:,.0f}", _times(against)
    return "", ""


def _ttft(side: Side, length: int) -> str:
    return next((f"{p.ttft_s.median:.3f}" for p in side.benchmark.prefill if p.tokens == length), "")


def _start(side: Side) -> Cells:
    return f"{side.benchmark.import_s + side.benchmark.load_s:.2f}", f"{side.start:.2f}×"


def _peak(side: Side) -> Cells:
    return f"{side.benchmark.peak_bytes / 2**20:,.0f}", f"{side.peak:.2f}×"


def _kl(side: Side) -> Cells:
    return "not known" if side.likeness is None else f"{side.likeness.mean_kl:.2g}", ""


def _top1(side: Side) -> Cells:
    return "" if side.likeness is None else f"{side.likeness.top1:.1%}", ""


def _of(side: Side) -> Cells:
    return "" if side.likeness is None else side.likeness.of, ""


def _times(against: Ratio | None) -> str:
    if against is None:
        return ""
    return f"{'' if against.clear else SAME}{against.value:.2f}×"


def _short(name: str) -> str:
    return name if len(name) <= NAME else name[: NAME - 1] + "…"
