"""Questions whose answer takes what a window must not import: torch, or an exporter of anyone's.

Each is a function of plain JSON to plain JSON, answered in a process of its own by `edgeq.jobs.ask`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeq.errors import EdgeqError
from edgeq.jsonable import from_json

Question = Callable[[dict[str, Any]], dict[str, Any]]


def needs(request: dict[str, Any]) -> dict[str, Any]:
    """What a quantization will take, in rows, and why it would be refused.

    Request: `recipe`, `out`, `threads`. Answer: `rows`; `line`: time and memory in a few words; `peak`: bytes of
    memory; `layers_s`, `writing_s`: seconds of the quantizing and of the calibration text before it (None: none is
    written); `summary`: the method's; `problem`: what stands against it (`what`, `where`, `hint`), or None.

    Raises:
        EdgeqError: no such model or method.
    """
    from edgeq.amounts import amount
    from edgeq.model.read import read_model
    from edgeq.quantize.methods import find_method
    from edgeq.quantize.predict import predicted, writing_needs
    from edgeq.quantize.words import duration, needs_rows
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
    seconds, peak = found.seconds, found.ram_bytes
    parts = {"layers_s": found.seconds, "writing_s": None if writing is None else writing[0]}
    if writing is not None:  # one after the other
        seconds, peak = seconds + writing[0], max(peak, writing[1])
    line = f"about {duration(seconds)} and {amount(peak)} of memory"
    return {"rows": rows, "line": line, "peak": peak, "summary": method.summary, "problem": problem, **parts}


def _refuse(recipe: Any, out: Path, spec: Any, method: Any, disk_bytes: int) -> None:
    from edgeq.quantize.refusals import refuse_unsupported
    from edgeq.quantize.work import check_room

    refuse_unsupported(spec, recipe, method)
    check_room(next(p for p in (out, *out.absolute().parents) if p.exists()), disk_bytes)


def exporters(request: dict[str, Any]) -> dict[str, Any]:
    """The exporters, and why each can't take a checkpoint.

    Request: `checkpoint`. Answer: `exporters`, a list of `name`, `about`, `refusals`, `options` and `choices` (see
    `edgeq.registry.Exporter`).

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
            found.append({"name": name, "about": "", "refusals": [error.line], "options": [], "choices": {}})
            continue
        told = {
            "name": name,
            "about": getattr(one, "about", ""),
            "refusals": refusals(one, made.spec, layers, others),
            "options": sorted(one.options),
            "choices": {option: list(values) for option, values in getattr(one, "choices", {}).items()},
        }
        found.append(told)
    return {"exporters": found}


QUESTIONS: dict[str, Question] = {"needs": needs, "exporters": exporters}
