"""The application's API: thin roads from a name or a path to the parts that do the work.

Imported by `edgeq.__getattr__` on first use; each function imports what it needs itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeq.checkpoint.store import Checkpoint
    from edgeq.device.spec import Device
    from edgeq.model.spec import ModelSpec
    from edgeq.plan import Plan
    from edgeq.registry import Progress, Session

_DEFAULT_CONTEXT = 8192


def load(path: str | Path, *, runtime: str = "auto", **options: Any) -> Session:
    """Open an artifact with its runtime.

    Args:
        path: a folder that `edgeq export` wrote, or a GGUF file; or a checkpoint that `edgeq quantize` wrote: of the
            artifacts beside it that were exported from it, the fastest that `edgeq bench` measured on this machine.
        runtime: the runtime's name; `auto` takes the one the artifact was made for.
        options: the runtime's own; for onnxruntime `context`, `threads`, `chunk`, `spin`, `huge_pages`, for
            llamacpp `context`, `threads`, `chunk`, `kv_dtype`, `spin`, `huge_pages`, for openvino `context`, `threads`,
            `chunk`, `device`, `precision`, `paged`, `huge_pages`.

    Raises:
        EdgeqError: not an artifact, damaged, or its runtime is not installed.
    """
    from edgeq import registry
    from edgeq.artifact import MANIFEST, read_artifact

    folder = Path(path)
    if folder.is_file() or (folder / MANIFEST).is_file() or not folder.is_dir():
        artifact = read_artifact(path)
    else:
        from edgeq.measure.fastest import choose

        artifact = choose(path, runtime_name=runtime).artifact
    return registry.runtime(artifact.runtime if runtime == "auto" else runtime).open(artifact, **options)


def profile(device: str = "auto", *, refresh: bool = False) -> Device:
    """What a device is and how fast its memory is.

    Args:
        device: `auto` (this machine, measured once and then remembered), a name of the catalog, or a profile's file.
        refresh: measure this machine again.

    Raises:
        EdgeqError: no such device.
    """
    from edgeq.device import load_device
    from edgeq.device.profile import profile_device

    return profile_device(refresh=True) if refresh and device == "auto" else load_device(device)


def inspect(model: str, *, revision: str | None = None, offline: bool = False) -> ModelSpec:
    """What a model is made of; never loads a weight. See `edgeq.model.read.read_model`.

    Raises:
        EdgeqError: no such model, or its description is damaged.
    """
    from edgeq.model.read import read_model

    return read_model(model, revision=revision, offline=offline)


def plan(model: str, *, device: str = "auto", context: int | None = None, **request: Any) -> Plan:
    """What of a model fits a device, how fast it can go, ranked.

    Args:
        context: tokens of prompt and answer together; None: 8192, or what the model knows if that is less.
        request: further fields of `edgeq.plan.Request` (batch, min_tps, max_memory in bytes, objective, ...).

    Raises:
        EdgeqError: no such model or device, or a value that makes no sense.
    """
    from edgeq.device import load_device
    from edgeq.plan import Request, make_plan

    spec = inspect(model)
    wanted = Request(context=min(_DEFAULT_CONTEXT, spec.max_positions) if context is None else context, **request)
    return make_plan(load_device(device), spec, wanted)


def quantize(
    model: str, out: str | Path, *, progress: Progress | None = None, force: bool = False, **recipe: Any
) -> Checkpoint:
    """Quantize a model into a neutral checkpoint.

    Args:
        model: a folder, a GGUF file or a hub id.
        out: the checkpoint's folder.
        recipe: the other fields of `edgeq.recipe.Recipe` (method, bits, group_size, ...).

    Raises:
        EdgeqError: no such model or method, `out` exists without `force`, no space.
    """
    from edgeq.jsonable import from_json
    from edgeq.model.weights import open_source
    from edgeq.quantize.engine import quantize as run
    from edgeq.recipe import Recipe

    wanted = from_json(Recipe, {"model": model, **recipe})
    return run(open_source(model), wanted, Path(out), progress=progress, force=force)


def convert(
    source: str | Path, out: str | Path, *, progress: Progress | None = None, force: bool = False
) -> Checkpoint:
    """Read a quantized model of another tool's into a checkpoint, every code and scale as it is.

    Args:
        source: a folder in a GPTQ, AWQ, AutoRound or compressed-tensors layout, a GGUF file, or a hub id of the former.
        out: the checkpoint's folder.

    Raises:
        EdgeqError: nothing there, or quantized in a way that no grid keeps; `out` exists without `force`; no space.
    """
    from edgeq.conversion import convert as run

    return run(source, out, progress=progress, force=force)
