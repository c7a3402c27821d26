"""A quantization as what a person types, as a sentence, and where it will lie."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from edgeq.checkpoint.manifest import MANIFEST, read_manifest
from edgeq.errors import EdgeqError
from edgeq.recipe import Recipe, recipe_json, recipe_named, with_presets
from edgeq.scheme import Grid

# What a name alone stands for, which the command line fills in by itself.
_NAMING = ("model", "method", "grid", "target")


def command_line(recipe: Recipe, out: Path, threads: int | None = None) -> str:
    """The `edgeq quantize` that does the same."""
    words = ["edgeq", "quantize", recipe.model, *_options(recipe), "-o", str(out)]
    if threads is not None:
        words += ["--threads", str(threads)]
    return shlex.join(words)


def _options(recipe: Recipe) -> list[str]:
    """The shorter of two ways: a scheme's name, or a method's and a grid's, with what differs from what they mean."""
    ways = [[*_naming(recipe), *_differing(recipe, _preset(recipe))]]
    named = _named(recipe)
    if named is not None:
        ways.append(["--scheme", recipe.scheme.name, *_differing(recipe, named)])
    return min(ways, key=len)


def _naming(recipe: Recipe) -> Iterator[str]:
    for field in dataclasses.fields(Recipe):
        value = getattr(recipe, field.name)
        if field.name in _NAMING[1:] and value != field.default:
            yield from _flag(field.name, value)


def _differing(recipe: Recipe, base: Recipe) -> Iterator[str]:
    for field in dataclasses.fields(Recipe):
        value = getattr(recipe, field.name)
        if value != getattr(base, field.name):
            yield from _flag(field.name, value)


def _flag(name: str, value: Any) -> Iterator[str]:
    if name == "symmetric":
        yield "--symmetric" if value else "--asymmetric"
    elif value is not None:
        yield from (f"--{name.replace('_', '-')}", str(value))


def _named(recipe: Recipe) -> Recipe | None:
    """The recipe that the scheme's name alone stands for; None: it has no such name."""
    try:
        return recipe_named(recipe.model, recipe.scheme.name)
    except EdgeqError:
        return None


def _preset(recipe: Recipe) -> Recipe:
    """What is named explicitly, and all else as the command line fills it in."""
    given = {name: getattr(recipe, name) for name in _NAMING}
    if recipe.method == "none":
        given |= {"bits": 16, "embed_bits": 16}
    return Recipe(**with_presets(given))


def folder_name(recipe: Recipe) -> str:
    """`SmolLM2-135M-rtn-int4-g32`: the name that `edgeq plan` gives a checkpoint too."""
    model = recipe.model.rstrip("/").rsplit("/", 1)[-1].removesuffix(".gguf")
    return f"{model}-{recipe.scheme.name}"


def sentence(recipe: Recipe) -> str:
    """What a weight becomes, for people."""
    if recipe.scheme.linear.kind == "float":
        return "Weights are kept in 16 bits."
    embed = recipe.scheme.embed
    kept = "16 bits" if embed.kind == "float" else f"{embed.bits} bits"
    rounded = {
        "float": "",
        "dynamic": " Inputs are rounded to 8 bits as they come.",
        "static": " Inputs are rounded to 8 bits on fixed scales.",
    }
    return f"{_weights(recipe.scheme.linear)}; the embedding has {kept}.{rounded[recipe.activations]}"


def _weights(grid: Grid) -> str:
    if grid.kind == "gguf":
        return f"Weights become blocks of llama.cpp's type {grid.ggml_type}, {grid.bits} bits a code"
    shared = "a whole row shares" if grid.group_size == -1 else f"{grid.group_size} of them share"
    what = {"none": "a scale", "int": "a scale and a zero point", "float": "a scale and a minimum"}[grid.zero]
    kind = f"one of {grid.levels} values of {grid.codebook}" if grid.codebook else f"{grid.bits}-bit numbers"
    return f"Weights become {kind}; {shared} {what}"


Standing = Literal["nothing", "same", "other", "foreign"]


def standing(out: Path, recipe: Recipe) -> Standing:
    """What lies at `out`: nothing, the checkpoint of this very recipe, another checkpoint, or something else."""
    if not out.exists():
        return "nothing"
    if not (out / MANIFEST).is_file():
        return "foreign"
    try:
        return "same" if read_manifest(out).recipe == recipe_json(recipe) else "other"
    except EdgeqError:
        return "other"


def other_name(out: Path) -> Path:
    """`out` with the smallest number behind it that nothing has."""
    n = 2
    while (found := out.with_name(f"{out.name}-{n}")).exists():
        n += 1
    return found
