"""What a measurement found: which is fastest, the figures of one beside its promise, what to make of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Static

from edgeq.tui.hints import in_app
from edgeq.tui.widgets.gauge import Gauges

if TYPE_CHECKING:
    from edgeq.measure.compare import Comparison, Side
    from edgeq.tui.benching import Dial


class BenchResult(VerticalScroll):
    """Several artifacts that were measured in turns: side by side first, then the fastest one's figures.

    Those that were measured apart: the latest one's figures, then side by side.
    """

    def compose(self) -> ComposeResult:
        with Horizontal(id="top"):
            with Vertical(id="said"):
                yield Static("", id="sides", markup=False)
                yield Static("", id="verdict", markup=False)
                yield Static("", id="notes", markup=False)
            yield Gauges("measured", id="measured")
        with Horizontal(id="tables"):
            yield Static("", id="figures", markup=False)
            yield Static("", id="beside", markup=False)
        yield Static("", id="apart", markup=False)

    def show(self, found: Comparison) -> None:
        from edgeq.cli import compare_report
        from edgeq.measure.bench_words import ceiling_line, main_side, verdict

        several, turns, best = len(found.sides) > 1, bool(found.rounds), main_side(found)
        for place, shown in (("#sides", several and turns), ("#apart", several and not turns)):
            self.query_one(place, Static).display = shown
            if shown:
                self.query_one(place, Static).update(_sides(found))
        names = compare_report.names(found)
        at = found.sides.index(best)
        name = f"{names[at]}: " if several else ""
        words = (f"{name}{verdict(best.benchmark)}", ceiling_line(best.benchmark))
        self.query_one("#verdict", Static).update("\n".join(line for line in words if line))
        self._show_tables([best, *(side for side in found.sides if side is not best)], names, found)
        self.query_one(Gauges).show(list(map(_dial, found.sides, names)), at)
        notes = _notes(found, best, several=several)
        self.query_one("#notes", Static).update(notes)
        self.query_one("#notes", Static).display = bool(notes)
        self.scroll_home(animate=False)

    def _show_tables(self, sides: list[Side], names: list[str], found: Comparison) -> None:
        """The first one's figures, and those of the next beside them where there is room."""
        from edgeq.cli.bench_ import table_of

        for place, side in zip(("#figures", "#beside"), (*sides[:2], None), strict=False):
            where = self.query_one(place, Static)
            if side is None:
                where.update("")
                continue
            table = table_of(side.benchmark)
            if len(sides) > 1:
                table.columns[0].header = names[found.sides.index(side)]
            where.update(table)


def _dial(side: Side, name: str) -> Dial:
    promise = side.benchmark.promise
    marks: list[tuple[str, float | None]] = [("promised", promise.decode_tps), ("ceiling", promise.ceiling_tps)]
    return name, side.benchmark.decode.tps.median, marks


def _sides(found: Comparison) -> Group:
    from edgeq.cli import compare_report
    from edgeq.measure.bench_words import versus

    said = Text(versus(found, compare_report.names(found)), "bold")
    about = Text(f"{compare_report.how(found)}\n", "dim")
    return Group(said, Text(""), *compare_report.legend(found), Text(""), *compare_report.tables(found), about)


def _notes(found: Comparison, best: Side, *, several: bool) -> Text:
    from edgeq.measure.bench_words import advice

    lines = [] if best.likeness is None or several else [best.likeness.words]
    lines += [f"! {doubt}" for doubt in (found.warnings if found.rounds else best.benchmark.warnings)]
    lines += [f"→ {in_app(line)}" for line in advice(best.benchmark)]
    return Text("\n".join(lines))
