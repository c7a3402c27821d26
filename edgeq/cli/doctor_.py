"""`edgeq doctor`: what is installed, what is missing, what each missing thing would give."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer
from rich.markup import escape

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from edgeq.doctor import Place, Report


def command(as_json: bool = typer.Option(False, "--json", help="Print JSON.")) -> None:
    """What is installed, what is missing, what each missing thing would give."""
    from rich.console import Console

    from edgeq.doctor import examine
    from edgeq.jsonable import to_json

    report = examine()
    if as_json:
        print(json.dumps(to_json(report), indent=2))
    else:
        render(report, Console())


def render(report: Report, console: Console) -> None:
    console.print(f"[bold]edgeq {report.edgeq}[/]  Python {report.python}", highlight=False, soft_wrap=True)
    console.print(f"[dim]{report.system}[/]\n", highlight=False)
    for table in (_packages(report), _tools(report), _places(report)):
        console.print(table)
        console.print()
    for problem in report.problems:
        console.print(f"[yellow]! {escape(problem)}[/]", highlight=False)
    if report.missing:
        console.print("[bold]To add what is missing[/]")
        for line in dict.fromkeys(p.install for p in report.missing):
            gives = ", ".join(dict.fromkeys(p.gives for p in report.missing if p.install == line))
            console.print(f"  {line}", markup=False, highlight=False, style="cyan", soft_wrap=True)
            console.print(f"    {gives}", style="dim", highlight=False)
    elif not report.problems:
        console.print("[green]Everything edgeq can use is installed.[/]")


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


MARKS = {
    "ok": "[green]✓[/]",
    "missing": "[dim]·[/]",
    "old": "[yellow]![/]",
    "broken": "[red]✗[/]",
}


def _packages(report: Report) -> Table:
    table = _table("", "package", "version", "what it gives")
    for p in report.packages:
        version = p.version or "[dim]missing[/]"
        said = version if p.state in ("ok", "missing") else f"{version} ({p.state})"
        table.add_row(MARKS[p.state], p.name, said, p.gives if p.state == "ok" else f"[dim]{p.gives}[/]")
    return table


def _tools(report: Report) -> Table:
    table = _table("", "outside Python", "found", "what it gives")
    for t in report.tools:
        mark, found = ("ok", t.found) if t.found else ("missing", f"[dim]no ({t.hint})[/]")
        table.add_row(MARKS[mark], t.name, found, t.gives)
    return table


def _places(report: Report) -> Table:
    table = _table("", "place", "free", "")
    for p in report.places:
        table.add_row(MARKS["ok" if p.writable else "broken"], p.name, f"{p.free_bytes / 1e9:.1f} GB", _note(p))
    return table


def _note(place: Place) -> str:
    writable = "" if place.writable else " [red](not writable)[/]"
    return f"{escape(place.path)}{writable}" + (f" [dim]({place.note})[/]" if place.note else "")
