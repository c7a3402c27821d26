"""`edgeq deliver`: where an artifact lies, how to load it, and a report of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from edgeq.deliver import Delivery
    from edgeq.deliver.ways import Way


def command(
    artifact: Annotated[Path, typer.Argument(help="A folder that `edgeq export` made, or a GGUF file.")],
    way: Annotated[
        str | None, typer.Option(help="Print this way to load it alone, ready to be piped into a file.")
    ] = None,
    report: Annotated[bool, typer.Option("--report", help="Write a report beside it: ARTIFACT-report.md.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the report there; as JSON where FILE ends in .json.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Where an artifact lies, what it needs, how it was proved and measured, and programs that load it."""
    from rich.console import Console

    from edgeq.deliver import deliver

    found = deliver(artifact)
    if way is not None:
        print(found.way(way).code, end="")
        return
    if as_json or report or out is not None:
        _report(found, out, write=report or out is not None, as_json=as_json)
        return
    render(found, Console())


def _report(found: Delivery, out: Path | None, *, write: bool, as_json: bool) -> None:
    from edgeq.cli.progress import steps
    from edgeq.deliver.report import default_place, make_report, write_report
    from edgeq.jsonable import to_json

    with steps("checking the files", quiet=as_json):
        made = make_report(found)
    place = out or default_place(found)
    if write:
        write_report(made, place)
    if as_json:
        print(json.dumps(to_json(made), indent=2))
    else:
        print(f"The report is {place}")


def render(found: Delivery, console: Console) -> None:
    """What there is to say, then the first way in full and the others by name."""
    from rich.table import Table
    from rich.text import Text

    from edgeq.deliver.delivery import rows

    console.print(Text(found.title, "bold"))
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows(found):
        table.add_row(Text(name, "dim"), Text(text))
    console.print(table)
    if not found.ways:
        return
    first, *others = found.ways
    console.print(Text(f"\n{first.title}", "bold"))
    _show(first, console)
    if others:
        console.print(Text("\nOther ways (--way NAME prints one):", "bold"))
        width = max(len(one.id) for one in others)
        for one in others:
            console.print(Text(f"  {one.id:{width}}  {one.title}: {one.install}"), soft_wrap=True)


def _show(way: Way, console: Console) -> None:
    from rich.syntax import Syntax

    code = Syntax("", way.language, theme="ansi_dark", background_color="default").highlight(way.code.rstrip())
    console.print(code, soft_wrap=True)  # a line that is broken could not be copied
