"""Size classes and well-known models: their shapes as data, usable without a network."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

from edgeq.model.config import read_config
from edgeq.model.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A well-known model.

    Attributes:
        name: the short name that `read_model` takes, e.g. `llama-3.1-8b`.
        hub: its id on the Hugging Face hub.
        classes: the size classes it stands for, e.g. `("8B",)`.
        source: where the numbers come from.
    """

    name: str
    hub: str
    classes: tuple[str, ...]
    source: str


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(files("edgeq.model").joinpath("classes.toml").read_text(encoding="utf-8"))


@cache
def size_classes() -> dict[str, str]:
    """Size class -> the short name of its reference model, e.g. `7B` -> `qwen2.5-7b`."""
    return dict(_table()["classes"])


@cache
def known_models() -> tuple[KnownModel, ...]:
    """Every model that is known by name offline, in the table's order."""
    standing: dict[str, tuple[str, ...]] = {}
    for size, name in size_classes().items():
        standing[name] = (*standing.get(name, ()), size)
    return tuple(
        KnownModel(name, row["hub"], standing.get(name, ()), _source(row)) for name, row in _table()["models"].items()
    )


def find(ref: str) -> ModelSpec | None:
    """The spec of a size class, short name or known hub id, whatever its case; None when it is none of them."""
    wanted = ref.strip().lower()
    sizes = {size.lower(): name for size, name in size_classes().items()}
    hubs = {row["hub"].lower(): name for name, row in _table()["models"].items()}
    name = sizes.get(wanted) or hubs.get(wanted) or wanted
    row = _table()["models"].get(name)
    if row is None:
        return None
    spec = read_config(row["config"], name=name, where=f"classes.toml: {name}")
    return replace(spec, origin="class", location=row["hub"], source=_source(row))


def _source(row: dict[str, Any]) -> str:
    note = f" ({row['note']})" if "note" in row else ""
    return f"https://huggingface.co/{row['hub']}/blob/main/config.json{note}"
