"""What `edgeq quantize` prints: what a run will take, how it goes, what came out beside what was predicted."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from edgeq.checkpoint.store import Checkpoint
    from edgeq.model.spec import ModelSpec
    from edgeq.quantize.layout import Needs
    from edgeq.recipe import Recipe
    from edgeq.registry import Progress

WORST = 5  # layers listed at the end


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


def rate(speed: float | None, what: str) -> str:
    """Work in a second: tokens of text, else millions of weights."""
    if not speed:
        return ""
    return f"{speed:,.0f} tokens/s" if "text" in what else f"{speed / 1e6:,.1f} M/s"


def print_methods(console: Console) -> None:
    """Every method with its line."""
    from edgeq.quantize.methods import all_methods

    table = _table()
    for method in all_methods():
        needs = "" if method.needs else "no text needed"
        table.add_row(method.name, method.summary, f"[dim]{needs}[/]")
    console.print(table)
    console.print("[dim]Methods that bring different things go together: awq+gptq, rotate+gptq, mixed+gptq.[/]")


def writing_needs(recipe: Recipe, spec: ModelSpec, threads: int | None) -> tuple[float, int] | None:
    """Seconds and bytes that the model takes to write its own calibration text; None where it need not."""
    from edgeq.quantize.calibrate import OWN
    from edgeq.quantize.calibrate_needs import own_text_needs
    from edgeq.quantize.methods import find_method
    from edgeq.quantize.predict import flop_rate
    from edgeq.quantize.threads import threads_now

    if recipe.calibration != OWN or not find_method(recipe.method).needs:
        return None
    return own_text_needs(spec, recipe, flop_rate(threads or threads_now()))


def print_needs(
    console: Console,
    recipe: Recipe,
    spec: ModelSpec,
    needs: Needs,
    out: Path | None,
    writing: tuple[float, int] | None = None,
) -> None:
    """What the run will take; `writing`: seconds and bytes of the calibration text before it."""
    table = _table()
    table.add_row("model", f"{spec.name}: {needs.weights / 1e6:,.1f} M weights")
    table.add_row("scheme", recipe.scheme.name)
    table.add_row("checkpoint", f"{_mb(needs.disk_bytes)}, {needs.disk_bytes * 8 / needs.weights:.2f} bits a weight")
    if needs.work_bytes:
        table.add_row("disk besides", f"{_mb(needs.work_bytes)} until it ends")
    table.add_row("memory at the peak", _mb(needs.ram_bytes))
    if needs.seconds:
        table.add_row("time", f"about {duration(needs.seconds)}")
    if writing is not None:
        table.add_row("calibration text", f"{duration(writing[0])} and {_mb(writing[1])} of memory to write it first")
    if out is not None:
        place = next(p for p in (out, *out.absolute().parents) if p.exists())
        table.add_row("free on the disk", _mb(shutil.disk_usage(place).free))
    console.print(table)


def print_made(console: Console, made: Checkpoint) -> None:
    """What came out, and what it took beside what was predicted."""
    from rich.markup import escape

    from edgeq.model.tensors import parameters
    from edgeq.quantize.report import read_report

    table, weights = _table(), parameters(made.spec)
    table.add_row("checkpoint", str(made.path))
    table.add_row("scheme", made.scheme.name)
    table.add_row("size", f"{_mb(made.total_bytes)}, {made.weight_bytes * 8 / weights:.2f} bits a weight")
    if made.manifest.calibration is not None:
        table.add_row("calibration", calibration_line(made.manifest.calibration))
    report = read_report(made.path)
    if report is not None:
        p = report.predicted
        table.add_row("took", f"{duration(report.seconds)}{_beside(duration(p.seconds) if p.seconds else '')}")
        if report.peak_rss_bytes:
            table.add_row("memory at the peak", f"{_mb(report.peak_rss_bytes)}{_beside(_mb(p.ram_bytes))}")
        table.add_row("disk", f"{_mb(report.disk_bytes)}{_beside(_mb(p.disk_bytes))}")
        stacks = {x.name.rpartition(".")[0] for x in report.layers}  # whose experts are listed one by one
        fallen = [layer.name for layer in report.layers if layer.fallback and layer.name not in stacks]
        if fallen:
            more = ", ..." if len(fallen) > 3 else ""
            table.add_row("fell back", f"{len(fallen)} of {len(report.layers)} layers: {', '.join(fallen[:3])}{more}")
    errors = [(n, t.error) for n, t in made.manifest.tensors.items() if t.error is not None]
    worst = sorted(errors, key=lambda item: -item[1])[:WORST]
    if worst:
        table.add_row("worst relative errors", ", ".join(f"{n} {error:.3f}" for n, error in worst))
    console.print(table, highlight=False)
    blocks = made.scheme.linear.kind == "gguf"  # llama.cpp's own, which no other runtime has
    export = f"edgeq export {made.path} {'--to gguf ' if blocks else ''}-o {made.path}-{'gguf' if blocks else 'onnx'}"
    for command in (export, f"edgeq report {made.path}"):
        console.print(f"  [bold cyan]{escape(command)}[/]", highlight=False, soft_wrap=True)


def calibration_line(facts: dict[str, Any]) -> str:
    """Where the text came from and how much of it there was."""
    kinds = {"self": "written by the model itself", "given": "given by the caller"}
    where = kinds.get(str(facts.get("kind")), str(facts.get("name", "")))
    parts = [f"{facts.get('tokens', 0):,} tokens", where, facts.get("used"), facts.get("note")]
    return "; ".join(str(p) for p in parts if p)


def duration(seconds: float) -> str:
    """`8.2 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _beside(predicted: str) -> str:
    return f" (predicted {predicted})" if predicted else ""


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size < 1e8 else f"{size / 1e6:,.0f} MB"


def _table() -> Table:
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    return table
