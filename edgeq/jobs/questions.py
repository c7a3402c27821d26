"""Questions whose answer takes what a window must not import: torch, or an exporter of anyone's.

Each is a function of plain JSON to plain JSON, answered in a process of its own by `edgeq.jobs.ask`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeq.errors import EdgeqError
from edgeq.jsonable import from_json, to_json

Question = Callable[[dict[str, Any]], dict[str, Any]]


def needs(request: dict[str, Any]) -> dict[str, Any]:
    """What a quantization will take, in rows, and why it would be refused.

    Request: `recipe`, `out`, `threads`. Answer: `rows`; `needs`; `writing`, seconds and bytes of the text before it;
    `problem`: what stands against it (`what`, `where`, `hint`), or None.

    Raises:
        EdgeqError: no such model or method.
    """
    from edgeq.model.read import read_model
    from edgeq.quantize.methods import find_method
    from edgeq.quantize.predict import predicted, writing_needs
    from edgeq.quantize.words import needs_rows
    from edgeq.recipe import Recipe

    recipe = from_json(Recipe, request["recipe"], "the options")
    out, threads = Path(request["out"]), request.get("threads")
    method, spec = find_method(recipe.method), read_model(recipe.model)
    found, writing = predicted(spec, recipe, threads, method=method), writing_needs(recipe, spec, threads)
    rows = needs_rows(recipe, spec, found, out, writing)
    problem = None
    try:
        _refuse(recipe, out, spec, method, found.disk_bytes + found.work_bytes)
    except EdgeqError as error:
        problem = {"what": error.what, "where": error.where, "hint": error.hint}
    return {"rows": rows, "needs": to_json(found), "writing": writing, "problem": problem}


def _refuse(recipe: Any, out: Path, spec: Any, method: Any, disk_bytes: int) -> None:
    from edgeq.quantize.refusals import refuse_unsupported
    from edgeq.quantize.work import check_room

    refuse_unsupported(spec, recipe, method)
    check_room(next(p for p in (out, *out.absolute().parents) if p.exists()), disk_bytes)


def exporters(request: dict[str, Any]) -> dict[str, Any]:
    """The exporters, and why each can't take a checkpoint.

    Request: `checkpoint`. Answer: `exporters`, a list of `name`, `refusals`, `options`, `choices` (the values that an
    option takes, its default first), `reads_back`.

    Raises:
        EdgeqError: no such checkpoint, or a damaged one.
    """
    from edgeq.checkpoint.store import Checkpoint
    from edgeq.registry import exporter, names, refusals

    made = Checkpoint.open(request["checkpoint"])
    stored = made.manifest.tensors.items()
    layers = dict.fromkeys(t.grid for name, t in stored if name.startswith("layers."))
    others = dict.fromkeys(t.grid for name, t in stored if not name.startswith("layers."))
    found = []
    for name in names("edgeq.exporters"):
        try:
            one = exporter(name)
        except EdgeqError as error:
            found.append({"name": name, "refusals": [error.line], "options": [], "choices": {}, "reads_back": False})
            continue
        choices = {option: list(values) for option, values in getattr(one, "choices", {}).items()}
        why = refusals(one, made.spec, layers, others)
        reads = bool(getattr(one, "reads_back", False))
        found.append(
            {"name": name, "refusals": why, "options": sorted(one.options), "choices": choices, "reads_back": reads}
        )
    return {"exporters": found}


QUESTIONS: dict[str, Question] = {"needs": needs, "exporters": exporters}
