"""Artifacts side by side: what each is, and tables of at most 80 columns with ratios to the first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeq.measure.bench_words import versus
from edgeq.measure.compare import short_names
from edgeq.measure.likeness import Likeness

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from edgeq.benchmark import Benchmark
    from edgeq.measure.compare import Comparison, Ratio, Side

COLUMNS = 3  # artifacts of a table: the first, and two more
NAME = 14  # characters of a name at the head of a column
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
        what = f"{one.target}, {one.scheme}, {one.artifact_bytes / 1e6:,.1f} MB"
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
    for i in which:
        table.add_column(_short(heads[i]), justify="right", no_wrap=True)
    first = sides[0].benchmark
    table.add_row(f"decode {first.decode.tokens}, tok/s", *_row(sides, _decode), style="bold")
    for at, length in enumerate(p.tokens for p in first.prefill):
        table.add_row(f"prefill {length}, tok/s", *_row(sides, lambda s, n=length: _prefill(s, n)))  # type: ignore[misc]
        if at == len(first.prefill) - 1:
            table.add_row(f"first word at {length}, s", *(_ttft(s.benchmark, length) for s in sides))
    starts = [(f"{s.benchmark.import_s + s.benchmark.load_s:.2f}", s.start) for s in sides]
    table.add_row("start, s", *_plain(starts))
    table.add_row("peak memory, MiB", *_plain((f"{s.benchmark.peak_bytes / 2**20:,.0f}", s.peak) for s in sides))
    alike = [s.likeness for s in sides]
    if any(alike):
        table.add_row("KL divergence", *("not known" if a is None else f"{a.mean_kl:.2g}" for a in alike))
        table.add_row("same likeliest", *("" if a is None else f"{a.top1:.1%}" for a in alike))
        table.add_row("  compared with", *(_of(a) for a in alike))
    return table


def _of(alike: Likeness | None) -> str:
    return "" if alike is None else f"the {alike.of}"


def _row(sides: Sequence[Side], cell: object) -> list[str]:
    assert callable(cell)
    return [cell(side) if i else cell(side).partition("  ")[0] for i, side in enumerate(sides)]


def _decode(side: Side) -> str:
    return f"{side.benchmark.decode.tps.median:,.1f}  {_times(side.decode)}"


def _prefill(side: Side, length: int) -> str:
    for one, against in zip(side.benchmark.prefill, side.prefill, strict=True):
        if one.tokens == length:
            return f"{one.tps.median:,.0f}  {_times(against)}"
    return ""


def _ttft(found: Benchmark, length: int) -> str:
    return next((f"{p.ttft_s.median:.3f}" for p in found.prefill if p.tokens == length), "")


def _plain(cells: Iterable[tuple[str, float]]) -> list[str]:
    return [f"{text}  {times:5.2f}×" if i else text for i, (text, times) in enumerate(cells)]


def _times(against: Ratio | None) -> str:
    if against is None:
        return ""
    return f"{against.value:5.2f}×" if against.clear else f"{SAME}{against.value:4.2f}×"


def _short(name: str) -> str:
    return name if len(name) <= NAME else name[: NAME - 1] + "…"
