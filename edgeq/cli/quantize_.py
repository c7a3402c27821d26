"""`edgeq quantize`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeq.errors import EdgeqError

if TYPE_CHECKING:
    from edgeq.recipe import Recipe

METHODS = "rtn, hqq, nf4, ternary, gptq, qronos, awq, autoround, smoothquant, sparsegpt, rotate, mixed"
KINDS = "int, affine (a float minimum), nf4, nf4-double, fp4, ternary, or a block type of llama.cpp (q4_k, iq4_xs, ...)"


def command(
    model: Annotated[
        str | None, typer.Argument(help="Folder, .gguf file or hub id; may come from --recipe or --plan.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder to write the checkpoint to.")] = None,
    method: Annotated[
        str | None,
        typer.Option(help=f"{METHODS}; joined by + where they go together (awq+gptq); see --methods. [default: rtn]"),
    ] = None,
    methods: Annotated[bool, typer.Option("--methods", help="List the methods, a line each, and do nothing.")] = False,
    bits: Annotated[
        int | None, typer.Option(help="Bits of a linear layer's weight; 16: no codes. [default: 4]")
    ] = None,
    group_size: Annotated[int | None, typer.Option(help="Weights that share a scale; -1: a row. [default: 32]")] = None,
    symmetric: Annotated[bool | None, typer.Option("--symmetric/--asymmetric", help="Without zero points.")] = None,
    grid: Annotated[str | None, typer.Option(help=f"Values a weight may take: {KINDS}. [default: int]")] = None,
    embed_bits: Annotated[int | None, typer.Option(help="Bits of the embedding. [default: 8]")] = None,
    embed_grid: Annotated[str | None, typer.Option(help="Grid of the embedding. [default: int]")] = None,
    embed_group_size: Annotated[int | None, typer.Option(help="Its group. [default: 32]")] = None,
    head: Annotated[str | None, typer.Option(help="Grid of an untied head: embed, linear or float.")] = None,
    activations: Annotated[
        str | None, typer.Option(help="float, or 8 bits with dynamic or static scales. [default: float]")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="What --method mixed may spend: 4.25 (bits a weight), 90MB, or 25tok/s.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help="What mixed precision is for: onnx, openvino, gguf or compressed_tensors. [default: any]"),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            help="Text to learn from: self (the model writes it), a .txt or .jsonl file, hub:NAME[:split][:field]. "
            "[default: self]"
        ),
    ] = None,
    calibration_tokens: Annotated[int | None, typer.Option(help="Tokens of it in all. [default: 32768]")] = None,
    calibration_length: Annotated[int | None, typer.Option(help="Tokens of one sequence. [default: 512]")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random. [default: 0]")] = None,
    scheme: Annotated[
        str | None, typer.Option(help="A scheme by the name `edgeq plan` prints, e.g. gptq-int4-g32; options win.")
    ] = None,
    plan: Annotated[
        str | None, typer.Option(help="A file of `edgeq plan --json`, or - for stdin: make what it recommends.")
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="A recipe's TOML; options given beside it win.")] = None,
    save_recipe: Annotated[Path | None, typer.Option(help="Also write the recipe here.")] = None,
    threads: Annotated[int | None, typer.Option(help="Of the computation. [default: all]")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would take, write nothing.")] = False,
) -> None:
    """Quantize a model into a neutral checkpoint, which `edgeq export` turns into a runtime's artifact.

    A killed run goes on where it stopped when the same command is given again.
    """
    from rich.console import Console

    from edgeq.cli.quantize_report import print_made, print_methods, print_needs, running

    console = Console()
    if methods:
        print_methods(console)
        return
    given = {
        "method": method,
        "bits": bits,
        "group_size": group_size,
        "symmetric": symmetric,
        "grid": grid,
        "embed_bits": embed_bits,
        "embed_grid": embed_grid,
        "embed_group_size": embed_group_size,
        "head": head,
        "activations": activations,
        "budget": budget,
        "target": target,
        "calibration": calibration,
        "calibration_tokens": calibration_tokens,
        "calibration_length": calibration_length,
        "seed": seed,
    }
    base = _base(model, recipe=recipe, plan=plan, scheme=scheme)
    wanted = _recipe(base, {name: value for name, value in given.items() if value is not None})

    from edgeq.quantize.methods import find_method

    find_method(wanted.method)  # before a download
    if threads is not None and threads < 1:
        raise EdgeqError(f"{threads} threads", hint="Give --threads 1 or more")
    if out is None and not dry_run:
        raise EdgeqError("no output folder", hint="Add -o FOLDER, or --dry-run to see what it would take")
    if out is not None and out.exists() and not (force or dry_run or _killed_at_its_end(out)):
        raise EdgeqError("the output exists already", where=out, hint="Choose another name or add --force")

    from edgeq.model.spec import refuse_estimate
    from edgeq.model.weights import open_source
    from edgeq.quantize.engine import quantize
    from edgeq.quantize.predict import predicted, writing_needs
    from edgeq.recipe import write_recipe

    source = open_source(wanted.model)
    refuse_estimate(source.spec)
    needs, writing = predicted(source.spec, wanted, threads), writing_needs(wanted, source.spec, threads)
    print_needs(console, wanted, source.spec, needs, out, writing)
    if dry_run or out is None:
        return
    if save_recipe is not None:
        write_recipe(save_recipe, wanted)
    with running() as progress:
        made = quantize(source, wanted, out, progress=progress, force=force, threads=threads)
    print_made(console, made)


def _killed_at_its_end(out: Path) -> bool:
    """A checkpoint that got its name, but not rid of what its run needed: the same command finishes it."""
    from edgeq.quantize import journal
    from edgeq.quantize.work import LOCK

    return any((out / name).exists() for name in (LOCK, journal.NAME))


def _base(model: str | None, *, recipe: Path | None, plan: str | None, scheme: str | None) -> dict[str, Any]:
    """The recipe's fields that come from a file, a plan or a scheme's name, before the options.

    Raises:
        EdgeqError: two of them, no model, or one of them can't be used.
    """
    from edgeq.recipe import read_recipe, recipe_json, recipe_named

    named = [f"--{n}" for n, v in (("recipe", recipe), ("plan", plan), ("scheme", scheme)) if v is not None]
    if len(named) > 1:
        raise EdgeqError(f"{' and '.join(named)} contradict each other", hint="Give one of them")
    if recipe is not None:
        return recipe_json(read_recipe(recipe, model=model))
    if plan is not None:
        return recipe_json(_planned(plan, model))
    if model is None:
        raise EdgeqError("no model", hint="edgeq quantize MODEL -o FOLDER, or --recipe FILE")
    return recipe_json(recipe_named(model, scheme)) if scheme is not None else {"model": model}


def _planned(file: str, model: str | None) -> Recipe:
    """The recipe of what a plan recommends.

    Raises:
        EdgeqError: not a plan, one that recommends nothing, or nothing that edgeq makes.
    """
    from edgeq.jsonable import from_json
    from edgeq.recipe import recipe_for
    from edgeq.scheme import Scheme

    where = "stdin" if file == "-" else file
    try:
        text = sys.stdin.read() if file == "-" else Path(file).expanduser().read_text("utf-8")
        best = json.loads(text)["recommended"]
        ours = json.loads(text)["model"]
        name = model or ours["location"] or ours["name"]
    except OSError as error:
        raise EdgeqError(f"cannot read the plan: {error.strerror}", where=where) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        hint = "Make one: edgeq plan -m MODEL --json > plan.json"
        raise EdgeqError("not a plan", where=where, hint=hint) from error
    if best is None:
        raise EdgeqError("the plan recommends nothing: nothing fits the device", where=where)
    if best.get("not_yet"):
        raise EdgeqError(f"what the plan recommends is not for edgeq to make: {best['not_yet']}", where=where)
    return recipe_for(str(name), from_json(Scheme, best["scheme"], where))


def _recipe(base: dict[str, Any], given: dict[str, Any]) -> Recipe:
    from edgeq.jsonable import from_json
    from edgeq.recipe import Recipe, with_presets

    if given.get("bits") == 16 and "embed_bits" not in given:
        given["embed_bits"] = 16  # half precision is meant for the whole model
    table = {**base, **given}
    # A recipe says everything; options alone leave the rest to what the method's name stands for.
    return from_json(Recipe, table if "method" in base else with_presets(table), "the options")
