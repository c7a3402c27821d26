"""`edgeq demo`: the whole road on SmolLM2-135M, from nothing to a measured artifact."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table

    from edgeq.demo.report import Outcome, Report
    from edgeq.registry import Progress


def command(
    model: str | None = typer.Option(None, help="Folder, .gguf file or hub id [default: SmolLM2-135M-Instruct]."),
    out: Path = typer.Option(Path("edgeq-demo"), "--out", "-o", help="Folder to work in."),
    bits: int = typer.Option(4, help="Bits of the linear weights."),
    force: bool = typer.Option(False, "--force", help="Begin anew: replace what an earlier demo made in OUT."),
    keep: bool = typer.Option(True, "--keep/--no-keep", help="Keep the neutral checkpoint beside the artifact."),
    as_json: bool = typer.Option(False, "--json", help="Print the report as JSON."),
) -> None:
    """The whole road on a small model: plan, quantize, export, verify, run, measure.

    Takes a minute or two. Run again, it takes up what is finished, also after a kill.
    """
    from rich.console import Console

    from edgeq.demo.folder import Settings
    from edgeq.demo.road import run_demo
    from edgeq.jsonable import to_json

    console = Console(stderr=as_json)
    console.print("[bold]edgeq demo[/]  from a model to a measured artifact\n", highlight=False)
    report = run_demo(Settings(out, model, bits, force, keep), Teller(console))
    if as_json:
        print(json.dumps(to_json(report), indent=2))
    else:
        render(report, console)


class Teller:
    """Prints a line for each finished step, and a bar for the running one."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextmanager
    def step(self, name: str) -> Iterator[Progress]:
        from edgeq.cli.progress import steps
        from edgeq.demo.road import TITLES

        with steps(f"  {TITLES[name]}") as progress:
            yield progress

    def done(self, name: str, what: str, seconds: float, reused: bool) -> None:
        from rich.table import Table
        from rich.text import Text

        line = Table.grid(padding=(0, 2, 0, 0))
        line.add_column(width=1)
        line.add_column(width=8)
        line.add_column(width=min(80, self.console.width) - 23, overflow="fold")
        line.add_column(width=7, justify="right", style="dim")
        spent = "earlier" if reused else f"{seconds:.1f} s"
        line.add_row(Text("✓", "green"), Text(name, "bold"), Text(what), spent)
        self.console.print(line)


def render(report: Report, console: Console) -> None:
    """The report: sample, planned beside measured, where things lie, how to load them. At most 80 columns."""
    from rich.markup import escape
    from rich.panel import Panel
    from rich.text import Text

    from edgeq.plan.words import gb

    sample = Text.assemble((report.prompt, "bold cyan"), f" {report.answer.strip()}")
    console.print()
    console.print(Panel(sample, title="it runs", title_align="left", border_style="cyan", width=min(80, console.width)))
    console.print()
    console.print(_outcomes(report))
    console.print()
    console.print(f"[dim]Planned: {escape(report.benchmark.promise.basis)}.[/]", highlight=False)
    for line in report.benchmark.warnings:
        console.print(f"[yellow]! {escape(line)}[/]", highlight=False)
    console.print()
    console.print(
        f"[bold]Artifact[/]    {escape(report.artifact)}  ({gb(report.artifact_bytes)})",
        highlight=False,
        soft_wrap=True,
    )
    if report.checkpoint:
        console.print(f"[bold]Checkpoint[/]  {escape(report.checkpoint)}", highlight=False, soft_wrap=True)
    console.print(f"[bold]Chat[/]        edgeq run {escape(report.artifact)}", highlight=False, soft_wrap=True)
    console.print("[bold]In Python[/]")
    console.print(_snippet(report))


def _snippet(report: Report) -> Padding:
    from rich.padding import Padding
    from rich.syntax import Syntax

    code = (
        "import edgeq\n"
        f"session = edgeq.load({report.artifact!r})\n"
        f"print(session.generate({report.prompt!r}, max_tokens=24))"
    )
    return Padding(Syntax(code, "python", theme="ansi_dark", background_color="default", word_wrap=True), (0, 2))


def _outcomes(report: Report) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 3, 0, 0), header_style="bold")
    table.add_column("")
    for name in ("planned", "measured", "ratio"):
        table.add_column(name, justify="right")
    table.add_column("goal")
    for one in report.outcomes:
        ratio = "" if one.ratio is None else f"{one.ratio:.2f}"
        table.add_row(f"{one.name}, {one.unit}", _figure(one.planned), _figure(one.measured), ratio, _goal(one))
    promise = report.benchmark.promise
    if promise.ceiling_tps:
        share = report.benchmark.decode.tps.median / promise.ceiling_tps
        table.add_row(
            "decode ceiling, tok/s", _figure(promise.ceiling_tps), "", "", f"[dim]{share:.0%} of it reached[/]"
        )
    for prefill in report.benchmark.prefill:
        said = promise.prefill_tps if promise.prefill_tokens == prefill.tokens else None
        ratio = f"{prefill.tps.median / said:.2f}" if said else ""
        table.add_row(f"prefill {prefill.tokens}, tok/s", _figure(said), _figure(prefill.tps.median), ratio, "")
    start = report.benchmark.import_s + report.benchmark.load_s
    table.add_row("import and load, s", "", f"{start:.2f}", "", "")
    return table


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}"


def _goal(one: Outcome) -> str:
    if one.goal is None:
        return ""
    if one.met is None:
        return "[dim]not planned[/]"
    return f"[green]✓ within {one.goal:.0%}[/]" if one.met else f"[yellow]✗ not within {one.goal:.0%}[/]"
