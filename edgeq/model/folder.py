"""A Hugging Face folder becomes a ModelSpec: its config.json, checked against the headers of its safetensors files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeq.errors import EdgeqError
from edgeq.model import headers
from edgeq.model.config import FAMILIES, family_of, read_config, text_fields, with_generation
from edgeq.model.fields import load_json
from edgeq.model.spec import ModelSpec


def read_folder(folder: Path) -> ModelSpec:
    """The architecture in a folder.

    Raises:
        EdgeqError: no config.json, or it is damaged, unknown, or contradicts the weights' headers.
    """
    config_path = folder / "config.json"
    if not config_path.is_file():
        ggufs = sorted(folder.glob("*.gguf"))
        hint = f"Did you mean {ggufs[0]}?" if ggufs else "Give the folder that save_pretrained or a download wrote"
        raise EdgeqError("no config.json in the folder", where=folder, hint=hint)
    config = load_json(config_path)
    generation_path = folder / "generation_config.json"
    generation = load_json(generation_path) if generation_path.is_file() else None
    spec = build(
        config,
        generation,
        headers.of_folder(folder),
        name=folder.resolve().name,
        where=config_path,
    )
    return replace(spec, origin="folder", location=str(folder.resolve()))


def build(config: Any, generation: Any, found: Mapping[str, headers.Header], *, name: str, where: object) -> ModelSpec:
    """A spec from a parsed config, generation config and tensor headers (empty when only the config is at hand)."""
    if generation is not None:
        config = with_generation(text_fields(config, where).data, generation, where)
    family = family_of(config, where)
    if family not in FAMILIES:
        return headers.estimate(config, found, name=name, where=where)
    spec = read_config(config, name=name, where=where)
    if found and text_fields(config, where).child("quantization_config") is None:
        headers.check(spec, found, where)
        spec = replace(spec, source_dtype=headers.dtype(found))
    return spec
