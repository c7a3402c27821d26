"""`edgeq quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeq.errors import EdgeqError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from edgeq.checkpoint.store import Checkpoint
    from edgeq.model.weights import SourceWeights
    from edgeq.quantize.layout import Needs
    from edgeq.recipe import Recipe

WORST = 5  # layers listed at the end


def command(
    model: Annotated[str | None, typer.Argument(help="Folder, .gguf file or hub id; may come from --recipe.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder to write the checkpoint to.")] = None,
    method: Annotated[str | None, typer.Option(help="How codes are chosen. [default: rtn]")] = None,
    bits: Annotated[
        int | None, typer.Option(help="Bits of a linear layer's weight; 16: no codes. [default: 4]")
    ] = None,
    group_size: Annotated[int | None, typer.Option(help="Weights that share a scale; -1: a row. [default: 32]")] = None,
    symmetric: Annotated[bool | None, typer.Option("--symmetric/--asymmetric", help="Without zero points.")] = None,
    embed_bits: Annotated[int | None, typer.Option(help="Bits of the embedding. [default: 8]")] = None,
    head: Annotated[str | None, typer.Option(help="Grid of an untied head: embed, linear or float.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="A recipe's TOML; options given beside it win.")] = None,
    save_recipe: Annotated[Path | None, typer.Option(help="Also write the recipe here.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would take, write nothing.")] = False,
) -> None:
    """Quantize a model into a neutral checkpoint, which `edgeq export` turns into a runtime's artifact."""
    from rich.console import Console

    from edgeq.model.weights import open_source
    from edgeq.quantize.engine import quantize
    from edgeq.quantize.layout import needs, shards
    from edgeq.quantize.methods import find_method
    from edgeq.recipe import write_recipe

    given = {
        "method": method,
        "bits": bits,
        "group_size": group_size,
        "symmetric": symmetric,
        "embed_bits": embed_bits,
        "head": head,
    }
    wanted = _recipe(recipe, model, {name: value for name, value in given.items() if value is not None})
    find_method(wanted.method)  # before a download
    if out is None and not dry_run:
        raise EdgeqError("no output folder", hint="Add -o FOLDER, or --dry-run to see what it would take")
    if out is not None and out.exists() and not force and not dry_run:
        raise EdgeqError("the output exists already", where=out, hint="Choose another name or add --force")
    source = open_source(wanted.model)
    console = Console()
    if dry_run or out is None:
        _print_needs(console, wanted, source, needs(shards(source.spec, wanted.scheme)), out)
        return
    if save_recipe is not None:
        write_recipe(save_recipe, wanted)
    with _Bar() as bar:
        made = quantize(source, wanted, out, progress=bar.update, force=force)
    _print_made(console, made)


def _recipe(file: Path | None, model: str | None, given: dict[str, object]) -> Recipe:
    from edgeq.jsonable import from_json
    from edgeq.recipe import Recipe, read_recipe, recipe_json

    if file is not None:
        base = recipe_json(read_recipe(file, model=model))
    elif model is not None:
        base = {"model": model}
    else:
        raise EdgeqError("no model", hint="edgeq quantize MODEL -o FOLDER, or --recipe FILE")
    if given.get("bits") == 16 and "embed_bits" not in given:
        given["embed_bits"] = 16  # half precision is meant for the whole model
    return from_json(Recipe, {**base, **given}, "the options")


class _Bar:
    """A progress bar on stderr, counted in weights, with their rate and the time that remains."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description:<24.24}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[rate]:>12}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,  # where nobody looks, it would leave an empty line
        )
        self._task = self._progress.add_task("", total=None, rate="")

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, done: int, total: int, what: str) -> None:
        speed = self._progress.tasks[0].speed
        rate = f"{speed / 1e6:,.1f} M/s" if speed else ""
        self._progress.update(self._task, completed=done, total=total, description=what, rate=rate)


def _print_needs(console: Console, recipe: Recipe, source: SourceWeights, needs: Needs, out: Path | None) -> None:
    import shutil

    table = _table()
    table.add_row("model", f"{source.spec.name}: {needs.weights / 1e6:,.1f} M weights")
    table.add_row("scheme", recipe.scheme.name)
    table.add_row("checkpoint", f"{needs.disk_bytes / 1e6:,.1f} MB, {_bits_per_weight(needs):.2f} bits a weight")
    table.add_row("memory at the peak", f"{needs.ram_bytes / 1e6:,.0f} MB")
    if out is not None:
        place = next(p for p in (out, *out.absolute().parents) if p.exists())
        table.add_row("free on the disk", f"{shutil.disk_usage(place).free / 1e6:,.0f} MB")
    console.print(table)


def _bits_per_weight(needs: Needs) -> float:
    return needs.disk_bytes * 8 / needs.weights


def _print_made(console: Console, made: Checkpoint) -> None:
    from edgeq.model.tensors import parameters

    weights = parameters(made.spec)
    quantized = {n: t for n, t in made.manifest.tensors.items() if t.error is not None}
    table = _table()
    table.add_row("checkpoint", str(made.path))
    table.add_row("scheme", made.scheme.name)
    table.add_row("size", f"{made.total_bytes / 1e6:,.1f} MB")
    table.add_row("bits a weight", f"{made.weight_bytes * 8 / weights:.2f}")
    worst = sorted(quantized.items(), key=lambda item: -(item[1].error or 0))[:WORST]
    if worst:
        table.add_row("worst relative errors", ", ".join(f"{n} {t.error:.3f}" for n, t in worst))
    table.add_row("next", f"edgeq export {made.path} -o {made.path}-onnx")
    console.print(table)


def _table() -> Table:
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    return table
