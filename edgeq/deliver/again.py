"""The commands that make an artifact again, from what its manifest and its checkpoint keep."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from edgeq.artifact import Artifact
from edgeq.checkpoint.store import Checkpoint
from edgeq.deliver.delivery import Delivery
from edgeq.errors import EdgeqError
from edgeq.export_command import command_line
from edgeq.jsonable import from_json
from edgeq.measure.proof import runs
from edgeq.plan.candidates import TARGETS
from edgeq.quantize.command import command_line as quantize_command
from edgeq.recipe import Recipe
from edgeq.registry import exporter


def recipe_of(made: Checkpoint) -> Recipe | None:
    """None: of a checkpoint that was converted, or quantized by a later release."""
    try:
        return from_json(Recipe, made.manifest.recipe)
    except EdgeqError:
        return None


def commands(found: Delivery, made: Checkpoint | None, recipe: Recipe | None) -> Iterator[str]:
    """`edgeq quantize`, `export`, `verify`, `bench`, as far as they are known and make sense."""
    artifact = found.artifact
    if made is not None and recipe is not None and recipe.method != "convert":
        yield quantize_command(recipe, made.path)
    origin = artifact.checkpoint
    to = exporter_of(artifact)
    if origin is not None and to is not None and found.place == artifact.path.absolute():
        yield command_line(origin, to, export_options(artifact, to, made), artifact.path.absolute())
    if runs(artifact):
        place = shlex.quote(str(found.place))
        if origin is not None:
            yield f"edgeq verify {place}"
        yield f"edgeq bench {place}"


def exporter_of(artifact: Artifact) -> str | None:
    """The exporter's name; None: of an artifact of an unknown kind."""
    if artifact.runtime == "transformers":
        return str(artifact.model.get("format", "compressed-tensors"))
    return next((to for target, to in TARGETS.items() if target.split("/")[0] == artifact.runtime), None)


def export_options(artifact: Artifact, to: str, made: Checkpoint | None) -> dict[str, Any]:
    """What the export was asked for, without what it does by itself."""
    try:
        chosen = exporter(to)
    except EdgeqError:  # its packages are not installed here
        return {}
    usual = {name: values[0] for name, values in getattr(chosen, "choices", {}).items()}
    if made is not None:
        usual["context"] = made.spec.max_positions
    given = {name: artifact.options[name] for name in sorted(chosen.options) if name in artifact.options}
    return {name: value for name, value in given.items() if value is not None and value != usual.get(name)}
