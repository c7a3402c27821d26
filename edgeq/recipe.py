"""Recipe: what to quantize and how, complete and reproducible, as a TOML file."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from edgeq.errors import EdgeqError
from edgeq.files import write_bytes
from edgeq.jsonable import from_json, to_json
from edgeq.scheme import (
    F16,
    F32,
    GGML_GRIDS,
    GGUF_BASE,
    Grid,
    Scheme,
    affine_grid,
    codebook_grid,
    gguf_scheme,
    int_grid,
    named_scheme,
)

HeadGrid = Literal["embed", "linear", "float"]
Activations = Literal["float", "dynamic", "static"]
Target = Literal["onnx", "openvino", "gguf", "compressed_tensors"]
CODEBOOK_GRIDS = ("nf4", "nf4-double", "fp4", "ternary")
BLOCK_GRIDS = tuple(name.lower() for name in GGML_GRIDS)
# llama.cpp's file types mix block types; `q4_1` alone is the block type for all, `gguf-q4_1` the mixture.
FILE_TYPES = tuple(f"gguf-{name.lower()}" for name in GGUF_BASE if name not in ("F16", "BF16"))
FILE_TYPES += tuple(n for name in GGUF_BASE if (n := name.lower()) not in BLOCK_GRIDS and n not in ("f16", "bf16"))
GRIDS = ("int", "affine", *CODEBOOK_GRIDS, *BLOCK_GRIDS, *FILE_TYPES)
GROUP_SIZES = (-1, 16, 32, 64, 128, 256)
BITS = (2, 3, 4, 5, 6, 7, 8, 16)


# What a method's name alone stands for, where the recipe says nothing else.
PRESETS: dict[str, dict[str, Any]] = {
    "smoothquant": {"bits": 8, "group_size": -1, "symmetric": True, "activations": "dynamic"},
    "nf4": {"grid": "nf4", "group_size": 64},
    "ternary": {"grid": "ternary", "group_size": 256},
    "absmean": {"grid": "ternary", "group_size": -1},
}


def with_presets(table: dict[str, Any]) -> dict[str, Any]:
    """A recipe's fields, with those that its method's name stands for."""
    found: dict[str, Any] = {}
    for part in str(table.get("method", "")).split("+"):
        found |= PRESETS.get(part, {})
    if table.get("grid") in (*BLOCK_GRIDS, *FILE_TYPES) or table.get("target") == "gguf":
        found["embed_grid"] = "q8_0"  # what llama.cpp can read
    return {**found, **table}


def altered(recipe: Recipe, **changes: Any) -> Recipe:
    """The recipe with other values; a name that stands for more (a method, a grid) brings what it stands for.

    Raises:
        EdgeqError: a value no grid has.
    """
    old, new = recipe_json(recipe), recipe_json(recipe) | changes
    plain = {f.name: f.default for f in dataclasses.fields(Recipe)}
    gone, brought = _stood_for(old, plain), _stood_for(new, plain)
    if gone != brought:
        new |= {name: plain[name] for name in gone} | brought | changes
    return from_json(Recipe, new, "the options")


def _stood_for(table: dict[str, Any], plain: dict[str, Any]) -> dict[str, Any]:
    """What the names in a recipe bring along by themselves."""
    named = {n: table[n] for n in ("method", "grid", "target") if table[n] != plain[n]}
    return {name: value for name, value in with_presets(named).items() if name not in named}


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is quantized.

    Attributes:
        model: folder, GGUF file or hub id of the source.
        method: name of a composition in `edgeq.quantize.methods`; `none` for a model kept in half precision.
        grid: kind of the linear layers' grid: `int` (integer zero points, or none where symmetric), `affine` (a float
            minimum), a codebook (`nf4`, `nf4-double`, `fp4`, `ternary`) or a llama.cpp block type (`q4_k`), which
            brings bits and groups of its own.
        bits, group_size, symmetric: of the linear layers; 16 bits keep them in half precision, a group of -1 is a
            whole row.
        embed_grid, embed_bits, embed_group_size, embed_symmetric: likewise of the embedding.
        head: grid of an untied output head: the embedding's, the linear layers', or half precision.
        activations: `dynamic` or `static` 8-bit activations of the linear layers, or `float` ones.
        calibration: text that methods learn from: `self` (written by the model itself), a .txt or .jsonl file, or
            `hub:NAME` for a data set of the hub.
        calibration_tokens, calibration_length: tokens in all, and of one sequence.
        budget: what the methods `mixed` and `omq` may spend on all weights: `4.25` (bits a weight), `90MB`, or
            `30tok/s` (decode ceiling on this device); None: as many bits as the grid would take.
        target: the exporter the checkpoint is meant for (`onnx`, `openvino`, `gguf`, `compressed_tensors`): mixed
            precision then takes only what its runtime runs well.
        seed: of everything random; a method without chance ignores it.

    Raises:
        EdgeqError: a value no grid has.
    """

    model: str
    method: str = "rtn"
    grid: str = "int"
    bits: int = 4
    group_size: int = 32
    symmetric: bool = False
    embed_grid: str = "int"
    embed_bits: int = 8
    embed_group_size: int = 32
    embed_symmetric: bool = False
    head: HeadGrid = "embed"
    activations: Activations = "float"
    calibration: str = "self"
    calibration_tokens: int = 32_768
    calibration_length: int = 512
    budget: str | None = None
    target: Target | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (("bits", BITS), ("group_size", GROUP_SIZES)):
            for field in (name, f"embed_{name}"):
                if getattr(self, field) not in allowed:
                    known = ", ".join(map(str, allowed))
                    raise EdgeqError(f"{field} is {getattr(self, field)}", where="recipe", hint=f"Choose from {known}")
        for name in (self.grid, self.embed_grid):
            if name not in GRIDS or (name in FILE_TYPES and name is not self.grid):
                raise EdgeqError(f"no grid {name!r}", where="recipe", hint=f"Choose from {', '.join(GRIDS)}")
        if not 2 <= self.calibration_length <= self.calibration_tokens:
            sizes = f"{self.calibration_tokens} tokens in sequences of {self.calibration_length}"
            raise EdgeqError(f"a calibration text of {sizes}", where="recipe", hint="E.g. 32768 tokens in 512")
        if self.budget is not None:
            parse_budget(self.budget)
        if self.method == "none" and (self.bits, self.embed_bits) != (16, 16):
            raise EdgeqError("the method `none` keeps 16 bits", where="recipe", hint="Choose a method, e.g. rtn")

    @property
    def scheme(self) -> Scheme:
        """How the model is stored; its name is the plan's where the embedding is as the plan takes it."""
        if self.grid in FILE_TYPES:
            kind = self.grid.removeprefix("gguf-")
            return replace(gguf_scheme(kind), name=f"{self.method}-gguf-{kind}", method=self.method)
        linear = _grid(self.grid, self.bits, self.group_size, self.symmetric)
        embed = _grid(self.embed_grid, self.embed_bits, self.embed_group_size, self.embed_symmetric)
        head = {"embed": None, "linear": linear, "float": F16}[self.head]
        if linear is F16:
            return Scheme("fp16" if embed is F16 else f"fp16-embed{self.embed_bits}", "none", linear, embed, head)
        act_bits = 16 if self.activations == "float" else 8
        return Scheme(self._name(), self.method, linear, embed, head, act_bits, act_static=self.activations == "static")

    def _name(self) -> str:
        """`gptq-int4-g32-sym`, `gptq-affine4-g32`, `gptq-nf4-g64`, `gptq-q4_k`, or `...-a8-static`."""
        group = f"-g{self.group_size}" if self.group_size > 0 else ""
        acts = "" if self.activations == "float" else f"-a8-{self.activations}"
        if {"mixed", "omq"} & set(self.method.split("+")) and (self.budget or self.target):
            return "-".join(filter(None, (self.method, self.budget, self.target))).lower().replace(" ", "") + acts
        kind = f"{self.grid}{self.bits}{group}" if self.grid in ("int", "affine") else self.grid
        if self.grid in CODEBOOK_GRIDS:
            kind += group
        return f"{self.method}-{kind}{'-sym' if self.symmetric and self.grid == 'int' else ''}{acts}"

    def to_toml(self) -> str:
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        lines = [f"{name} = {_toml_value(value)}" for name, value in values.items() if value is not None]
        return "# Recipe of `edgeq quantize --recipe`\n" + "\n".join(lines) + "\n"


_BUDGET = re.compile(r"(?P<amount>\d+(?:\.\d+)?)\s*(?P<unit>bpw|kb|mb|gb|kib|mib|gib|tok/s)?", re.IGNORECASE)
_BYTES = {"kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def parse_budget(text: str) -> tuple[float, Literal["bpw", "bytes", "tok/s"]]:
    """`4.25`, `4.25bpw`, `90MB`, `30tok/s` -> amount and unit.

    Raises:
        EdgeqError: anything else, or out of range.
    """
    found = _BUDGET.fullmatch(text.strip())
    hint = "4.25 (bits a weight), 90MB or 30tok/s"
    if found is None:
        raise EdgeqError(f"a budget of {text[:40]!r}", where="recipe", hint=hint)
    amount, unit = float(found["amount"]), (found["unit"] or "bpw").lower()
    if unit == "bpw" and not 1 < amount < 16:
        raise EdgeqError(f"a budget of {text} bits a weight", where="recipe", hint="Between 1 and 16")
    if not 0 < amount < 1e15:
        raise EdgeqError(f"a budget of {text}", where="recipe", hint=hint)
    if unit == "bpw":
        return amount, "bpw"
    return (amount, "tok/s") if unit == "tok/s" else (amount * _BYTES[unit], "bytes")


def recipe_for(model: str, scheme: Scheme) -> Recipe:
    """The recipe that makes `model` in a scheme that `edgeq plan` named.

    Raises:
        EdgeqError: the scheme has a kind of grid that is not quantized to (half or single precision).
    """
    if scheme.gguf_type is not None and f"gguf-{scheme.gguf_type.lower()}" in FILE_TYPES:
        return Recipe(model, grid=f"gguf-{scheme.gguf_type.lower()}", embed_grid="q8_0")
    for grid in (scheme.linear, scheme.embed):
        if grid == F32 or (grid.kind == "gguf" and scheme.gguf_type is not None):
            raise EdgeqError(f"`edgeq quantize` has no recipe for the scheme {scheme.name}")
    heads: dict[Grid | None, HeadGrid] = {F16: "float", scheme.linear: "linear", scheme.embed: "embed", None: "embed"}
    return Recipe(
        model=model,
        method=scheme.method,
        grid=_grid_name(scheme.linear),
        embed_grid=_grid_name(scheme.embed),
        activations="float" if scheme.act_bits == 16 else "static" if scheme.act_static else "dynamic",
        bits=scheme.linear.bits,
        group_size=scheme.linear.group_size,
        symmetric=scheme.linear.symmetric and scheme.linear.kind == "int",
        embed_bits=scheme.embed.bits,
        embed_group_size=scheme.embed.group_size,
        embed_symmetric=scheme.embed.symmetric and scheme.embed.kind == "int",
        head=heads[scheme.head],
    )


_NAMED = re.compile(
    r"(?P<method>[a-z0-9:+.-]+?)-(?P<kind>(?P<uniform>int|affine)(?P<bits>[2-8])|{kinds})"
    r"(?:-g(?P<group>\d+))?(?P<symmetric>-sym)?(?:-a8-(?P<activations>dynamic|static))?".format(
        kinds="|".join(sorted(GRIDS[2:], key=len, reverse=True))
    )
)


def recipe_named(model: str, name: str) -> Recipe:
    """The recipe of a scheme by its name, as `Recipe.scheme` and `edgeq plan` write it.

    Raises:
        EdgeqError: no such scheme, or one that `edgeq quantize` does not make.
    """
    found = _NAMED.fullmatch(name.strip().lower())
    if found is None:
        return recipe_for(model, named_scheme(name))
    group = found["group"]
    return Recipe(
        model=model,
        method="rtn" if found["method"] == "gguf" else found["method"],  # the plan's word for a type of llama.cpp
        grid=found["uniform"] or found["kind"],
        bits=int(found["bits"] or 4),
        group_size=int(group) if group else -1,
        symmetric=found["symmetric"] is not None,
        activations=found["activations"] or "float",  # type: ignore[arg-type]
    )


def parse_recipe(text: str, where: object = None, *, model: str | None = None) -> Recipe:
    """TOML to Recipe.

    Args:
        model: takes the place of the one in the text, which may then lack it.

    Raises:
        EdgeqError: bad TOML, an unknown field, a wrong type or value.
    """
    try:
        table: dict[str, Any] = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise EdgeqError(f"bad TOML: {str(error)[:200]}", where=where) from error
    return from_json(Recipe, with_presets(table if model is None else {**table, "model": model}), where)


def read_recipe(path: Path, *, model: str | None = None) -> Recipe:
    """A recipe file; see `parse_recipe`."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise EdgeqError(f"cannot read the recipe: {error.strerror}", where=path) from error
    except UnicodeDecodeError as error:
        raise EdgeqError("the recipe is not UTF-8", where=path) from error
    return parse_recipe(text, path, model=model)


def write_recipe(path: Path, recipe: Recipe) -> None:
    write_bytes(path, recipe.to_toml().encode())


def recipe_json(recipe: Recipe) -> dict[str, Any]:
    """As a checkpoint's manifest keeps it."""
    table: dict[str, Any] = to_json(recipe)
    return table


def _grid(kind: str, bits: int, group_size: int, symmetric: bool) -> Grid:
    if kind.upper() in GGML_GRIDS:
        return GGML_GRIDS[kind.upper()]
    if kind in CODEBOOK_GRIDS:
        return codebook_grid(kind.removesuffix("-double"), group_size, double=kind.endswith("-double"))
    if bits == 16:
        return F16
    return affine_grid(bits, group_size) if kind == "affine" else int_grid(bits, group_size, symmetric=symmetric)


def _grid_name(grid: Grid) -> str:
    """The recipe's word for a grid's kind."""
    if grid.kind == "gguf":
        return str(grid.ggml_type).lower()
    if grid.kind == "codebook":
        return f"{grid.codebook}{'' if grid.super_size is None else '-double'}"
    return "affine" if grid.zero == "float" else "int"


def _toml_value(value: str | int | float | bool) -> str:
    # A JSON string is a TOML basic string, but for DEL, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
