"""What `edgeq quantize` prints: what a run will take, how it goes, what came out beside what was predicted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgeq.quantize.words import made_rows, needs_rows, rate

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from edgeq.checkpoint.store import Checkpoint
    from edgeq.model.spec import ModelSpec
    from edgeq.quantize.layout import Needs
    from edgeq.recipe import Recipe
    from edgeq.registry import Progress


@contextmanager
def running() -> Iterator[Progress]:
    """A progress bar on stderr with the rate and the time that remains, for each part of the work anew."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<28.28}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[rate]:>14}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    # Where nobody looks, a bar would leave an empty line.
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None, rate="")

        def update(done: int, total: int, what: str) -> None:
            if bar.tasks[0].total != total:  # another part: tokens of text, weights of the model
                bar.reset(task, total=total)
            bar.update(task, completed=done, description=what, rate=rate(bar.tasks[0].speed, what))

        yield update


def print_methods(console: Console) -> None:
    """Every method with its line."""
    from edgeq.quantize.methods import all_methods

    table = _table()
    for method in all_methods():
        needs = "" if method.needs else "no text needed"
        table.add_row(method.name, method.summary, f"[dim]{needs}[/]")
    console.print(table)
    console.print("[dim]Methods that bring different things go together: awq+gptq, rotate+gptq, mixed+gptq.[/]")


def print_needs(
    console: Console,
    recipe: Recipe,
    spec: ModelSpec,
    needs: Needs,
    out: Path | None,
    writing: tuple[float, int] | None = None,
) -> None:
    """What the run will take; `writing`: seconds and bytes of the calibration text before it."""
    console.print(_table(needs_rows(recipe, spec, needs, out, writing)))


def print_made(console: Console, made: Checkpoint) -> None:
    """What came out, and what it took beside what was predicted."""
    from rich.markup import escape

    console.print(_table(made_rows(made)), highlight=False)
    blocks = made.scheme.linear.kind == "gguf"  # llama.cpp's own, which no other runtime has
    export = f"edgeq export {made.path} {'--to gguf ' if blocks else ''}-o {made.path}-{'gguf' if blocks else 'onnx'}"
    for command in (export, f"edgeq report {made.path}"):
        console.print(f"  [bold cyan]{escape(command)}[/]", highlight=False, soft_wrap=True)


def _table(rows: Iterable[tuple[str, str]] = ()) -> Table:
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
