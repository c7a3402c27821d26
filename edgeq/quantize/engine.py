"""The engine: stream a model onto its grids, into a checkpoint. Never holds the model.

Methods that need no text take tensor after tensor (edgeq.quantize.stream), the others block after block
(edgeq.quantize.calibrated). Work goes on in `OUT.partial`: one shard a layer, each written atomically and then
journaled. After a kill, the same command takes up where it stopped and ends in the same bytes. `OUT` appears when
everything is whole.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgeq.artifact import sha256
from edgeq.checkpoint.activation import ActivationGrid
from edgeq.checkpoint.manifest import FORMAT, MANIFEST, Manifest, StoredTensor
from edgeq.checkpoint.store import Checkpoint
from edgeq.checkpoint.weights import Weights, dense
from edgeq.checkpoint.write import versions, write_tokenizer
from edgeq.errors import EdgeqError
from edgeq.files import write_json
from edgeq.jsonable import to_json
from edgeq.model.spec import refuse_estimate
from edgeq.model.tensors import parameters
from edgeq.quantize.journal import Journal
from edgeq.quantize.layout import Plan, disk_bytes, shards
from edgeq.quantize.methods import find_method
from edgeq.quantize.methods.composition import Method
from edgeq.quantize.mixtures import mixture_of
from edgeq.quantize.predict import predicted, work_bytes
from edgeq.quantize.refusals import refuse_unsupported
from edgeq.quantize.report import write_report
from edgeq.quantize.stream import relative_error, stream_shards
from edgeq.quantize.text import allocated, check_text, given_text
from edgeq.quantize.threads import limited, threads_now
from edgeq.quantize.work import check_room, clear, finish, tidy, work_folder
from edgeq.recipe import Recipe, recipe_json
from edgeq.registry import Progress

if TYPE_CHECKING:
    from edgeq.quantize.calibrate import Calibration

__all__ = ["describe_source", "quantize", "relative_error"]


def quantize(
    source: Weights,
    recipe: Recipe,
    out: Path,
    *,
    progress: Progress | None = None,
    force: bool = False,
    threads: int | None = None,
    tokens: npt.ArrayLike | None = None,
) -> Checkpoint:
    """Quantize `source` by `recipe` into the folder `out`.

    Args:
        progress: called with (weights done, weights in all, what is being done).
        force: replace `out` once the new checkpoint is whole.
        threads: of the computation; None: as the environment has it.
        tokens: calibration text as token ids (sequences, length), in place of the recipe's.

    Raises:
        EdgeqError: `out` exists, no such method, no room, a model the method can't run, or a weight that can't be
            quantized.
    """
    refuse_estimate(source.spec)
    method = find_method(recipe.method)
    out = Path(out).expanduser()
    if out.exists():
        whole = _just_finished(out, recipe)
        if whole is not None:
            return whole
        if not force:
            raise EdgeqError("the output exists already", where=out, hint="Choose another name or add --force")
    refuse_unsupported(source.spec, recipe, method)
    report = progress or _silent
    try:
        with limited(threads), work_folder(out) as work:
            _run(source, recipe, method, tokens, work, report)
            finish(work, out)
    except EdgeqError as error:
        if isinstance(error.__cause__, OSError) and error.what.startswith("cannot write"):
            hint = "Free space and run the same command again: it goes on where it stopped"
            raise EdgeqError(error.what, where=error.where, hint=hint) from error.__cause__
        raise
    return Checkpoint.open(out)


def describe_source(source: Weights) -> dict[str, Any]:
    """The source's name and the checksums of its weight files (of its tensors, where it has no files)."""
    name = source.spec.name
    files: tuple[Path, ...] = getattr(source, "files", ())
    if files:
        return {"name": name, "files": {p.name: {"bytes": p.stat().st_size, "sha256": sha256(p)} for p in files}}
    digest = hashlib.sha256()
    for tensor in source.names():
        digest.update(tensor.encode())
        digest.update(np.ascontiguousarray(dense(source.load(tensor))).data)
    return {"name": name, "tensors_sha256": digest.hexdigest()}


def _run(
    source: Weights, recipe: Recipe, method: Method, tokens: npt.ArrayLike | None, work: Path, report: Progress
) -> None:
    started = time.perf_counter()
    tokenizer = source.tokenizer_files()  # first: when it is damaged, the hours of the shards would be lost
    report(0, parameters(source.spec), "checksums of the source")
    origin = describe_source(source)
    key = _fingerprint(source, recipe, origin)
    forecast = predicted(source.spec, recipe, threads_now(), method=method)
    text = _text(source, recipe, tokens, work, origin, report) if method.needs else None
    weights = _rotated(source, recipe, method)
    if method.allocation is None:
        grids = mixture_of(recipe, weights.spec) or {}
    else:
        grids = allocated(weights, recipe, text, work, _key(key, text), report)
    plan = shards(weights.spec, recipe.scheme, grids)
    log = Journal(work, _key(key, text, to_json(grids)) if text or grids else key)
    before = sum(d.step_seconds for d in log.done.values())  # of runs that were interrupted
    clear(work, keep=log.files())
    left = {name: items for name, items in plan.items() if name not in log.done}
    check_room(work, disk_bytes(left) + work_bytes(weights.spec, method, 0 if text is None else text.tokens.size))
    if text is None:
        stream_shards(weights, plan, lambda matrix, item: method.quantize(matrix, item.grid), log, report)
    else:
        from edgeq.quantize.calibrated import CalibratedRun

        CalibratedRun(weights, method, plan, text.tokens, log, report, recipe.activations).run()
    _finish_files(weights, recipe, plan, log, text, work, tokenizer, origin)
    write_report(work, forecast, before + time.perf_counter() - started, _stored(plan, log, recipe), log.done)


def _finish_files(
    weights: Weights,
    recipe: Recipe,
    plan: Plan,
    log: Journal,
    text: Calibration | None,
    work: Path,
    tokenizer: Mapping[str, Path | bytes],
    origin: dict[str, Any],
) -> None:
    """Tokenizer and manifest."""
    files = {d.shard: d.file for d in log.done.values()} | write_tokenizer(tokenizer, weights.spec.name, work)
    manifest = Manifest(
        recipe=recipe_json(recipe),
        scheme=recipe.scheme,
        spec=weights.spec,
        source=origin,
        versions=versions(),
        tensors=_stored(plan, log, recipe),
        files={name: files[name] for name in sorted(files)},
        calibration=None if text is None else text.describe(),
    )
    write_json(work / MANIFEST, to_json(manifest))


def _stored(plan: Plan, log: Journal, recipe: Recipe) -> dict[str, StoredTensor]:
    dynamic: ActivationGrid | None = None
    if recipe.activations == "dynamic":
        from edgeq.quantize.activations import DYNAMIC

        dynamic = DYNAMIC
    found = {}
    for shard, items in plan.items():
        done = log.done[shard]
        for item in items:
            name = item.tensor.name
            stored = item.stored
            activation = done.activations.get(name)
            if item.grid.kind != "float" and item.tensor.layer is not None:
                activation = activation or dynamic
            error, judged = done.errors.get(name), done.reports.get(name)
            found[name] = StoredTensor(shard, stored.shape, stored.grid, error, judged, activation)
    return found


def _text(
    source: Weights, recipe: Recipe, tokens: npt.ArrayLike | None, work: Path, origin: Any, report: Progress
) -> Calibration:
    if tokens is not None:
        text = given_text(tokens)
    else:
        from edgeq.quantize.calibrate import calibration

        text = calibration(source, recipe, report, folder=work, origin=origin)
    check_text(text, source.spec)
    return text


def _rotated(source: Weights, recipe: Recipe, method: Method) -> Weights:
    if not method.rotate:
        return source
    from edgeq.quantize.transforms.rotation import rotated

    turned: Weights = rotated(source, recipe.seed)
    return turned


def _just_finished(out: Path, recipe: Recipe) -> Checkpoint | None:
    """The checkpoint of a run that was killed after it had given the result its name; None: nothing of the kind."""
    if not (out / MANIFEST).is_file() or not tidy(out):
        return None
    made = Checkpoint.open(out)
    return made if made.manifest.recipe == recipe_json(recipe) else None


def _fingerprint(source: Weights, recipe: Recipe, origin: dict[str, Any]) -> str:
    """Whatever changes the bytes of a shard changes this."""
    parts = [FORMAT, recipe_json(recipe), to_json(source.spec), origin, versions()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _key(key: str, text: Calibration | None, grids: Any = None) -> str:
    parts = [key, None if text is None else text.fingerprint, grids]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _silent(done: int, total: int, what: str) -> None:
    """The progress of a caller that asked for none."""
