"""A checkpoint to a Hugging Face folder: `config.json`, safetensors, tokenizer. The same for every layout."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.artifact import MANIFEST, Artifact
from edgeq.checkpoint.activation import ActivationGrid
from edgeq.checkpoint.shard import write_shard
from edgeq.checkpoint.tensor import Parameters, QuantizedTensor
from edgeq.checkpoint.weights import Weight, Weights, dense
from edgeq.errors import EdgeqError
from edgeq.exporters.folder import grid_of, manifest, positions, write_tokenizer
from edgeq.exporters.huggingface.layouts import HEAD, Kept, Layout
from edgeq.files import new_folder, write_json
from edgeq.formats.uniform import Array
from edgeq.model.config import read_config
from edgeq.model.hf_config import config_of, norm_shift
from edgeq.model.names import hf_names
from edgeq.model.spec import ModelSpec
from edgeq.model.tensors import TensorSpec, tensors
from edgeq.registry import Progress
from edgeq.scheme import Grid

SHARD_BYTES = 1 << 30  # held in memory until a file is full
INDEX = "model.safetensors.index.json"
# Families whose hidden states overflow half precision: runtimes that want 16 bits take bfloat16 by themselves.
_OVERFLOW = ("gemma2", "gemma3_text")


@dataclass(frozen=True, slots=True)
class _Module:
    """A tensor of the files, or the parts of one, made of `members` one below the other. `kept`: it is quantized."""

    name: str
    members: tuple[TensorSpec, ...]
    kept: Kept | None

    @property
    def stem(self) -> str:
        return self.name.removesuffix(".weight")

    @property
    def linear(self) -> bool:
        return self.members[0].linear


def export(
    checkpoint: Weights,
    out: Path,
    layout: Layout,
    *,
    progress: Progress | None = None,
    force: bool = False,
    plan: Mapping[str, Any] | None = None,
) -> Artifact:
    """Write the artifact folder `out`; it appears under that name only when it is whole.

    The embedding, and a head that the layout can't hold, are written as the float values of the checkpoint, in the
    narrowest type that holds each of them exactly.

    Raises:
        EdgeqError: a model or a grid that the folder can't hold, before anything is written; `out` exists without
            `force`; no space.
    """
    spec = checkpoint.spec
    config = config_of(spec)
    modules = list(_modules(checkpoint, layout))
    quantized = {m.stem: m.kept for m in modules if m.kept is not None}
    floats = [m.stem for m in modules if m.linear and m.kept is None] + ([HEAD] if spec.tied else [])
    if not quantized and layout.name != "compressed-tensors":
        raise EdgeqError(f"nothing in this model is quantized, {layout.name} has nothing to store", where=spec.name)
    why = layout.refuses_model(quantized)
    if why is not None:
        raise _refused(layout, why, spec.name)
    config["dtype"] = config["torch_dtype"] = _dtype(spec, quantized)
    if quantized:
        config["quantization_config"] = layout.config(quantized, floats)
    tokenizer = checkpoint.tokenizer_files()
    with new_folder(out, force=force) as folder:
        dequantized = _write_weights(folder, checkpoint, modules, layout, quantized, progress)
        write_json(folder / "config.json", config)
        write_tokenizer(tokenizer, folder)
        artifact = manifest(
            checkpoint,
            folder,
            runtime="transformers",
            context=positions(spec, None),
            options={},
            facts={"format": layout.name},
            plan=plan,
            notes=[*layout.notes(quantized), *dequantized],
        )
        write_json(folder / MANIFEST, artifact.to_json())
    return replace(artifact, path=out)


def _modules(checkpoint: Weights, layout: Layout) -> Iterator[_Module]:
    """The tensors of the files, each with how it is kept.

    Raises:
        EdgeqError: one that the layout can't hold.
    """
    slices = hf_names(checkpoint.spec)
    parts: dict[str, list[TensorSpec]] = {}
    for t in tensors(checkpoint.spec):
        parts.setdefault(slices[t.name].name, []).append(t)
    for name, members in parts.items():
        members.sort(key=lambda t: slices[t.name].row_start or 0)
        ways = {_kept(checkpoint, t, layout) for t in members}
        if len(ways) > 1:
            what = "Hugging Face keeps these matrices as one, which needs one grid"
            raise _refused(layout, what, " + ".join(t.name for t in members))
        kept = ways.pop()
        first = members[0]
        if kept is not None:
            why = layout.refuses_module(sum(t.shape[0] for t in members), first.shape[-1], kept)
            if why is not None and first.role != "head":
                raise _refused(layout, why, first.name)
            kept = kept if why is None else None
        yield _Module(name, tuple(members), kept)


def _kept(checkpoint: Weights, t: TensorSpec, layout: Layout) -> Kept | None:
    """How the layout keeps a tensor quantized; None: as floats.

    Raises:
        EdgeqError: a linear layer on a grid that it refuses.
    """
    grid = grid_of(checkpoint, t)
    if grid.kind == "float" or len(t.shape) != 2 or not t.linear:
        return None
    why = layout.refuses(grid)
    if why is None:
        return Kept(grid, _activation(checkpoint, t.name))
    if t.role == "head":
        return None
    raise _refused(layout, why, t.name)


def _refused(layout: Layout, why: str, where: str) -> EdgeqError:
    return EdgeqError(f"this checkpoint can't be exported to {layout.name}: {why}", where=where, hint=layout.others)


def _activation(checkpoint: Weights, name: str) -> ActivationGrid | None:
    asked = getattr(checkpoint, "activation", None)
    found: ActivationGrid | None = None if asked is None else asked(name)
    return found


def _dtype(spec: ModelSpec, quantized: Mapping[str, Kept]) -> str:
    """What runtimes compute in unless they are told otherwise: half precision, which holds the scales exactly."""
    half = all(k.uniform.scale_dtype == "f16" for k in quantized.values())
    return "float16" if quantized and half and spec.family not in _OVERFLOW else "float32"


def _write_weights(
    folder: Path,
    checkpoint: Weights,
    modules: list[_Module],
    layout: Layout,
    quantized: Mapping[str, Kept],
    progress: Progress | None,
) -> list[str]:
    """Write the safetensors files; a note for each matrix that is stored as floats though the checkpoint has it on a
    grid."""
    notes: list[str] = []
    shift = norm_shift(checkpoint.spec, read_config(config_of(checkpoint.spec), name=checkpoint.spec.name))
    shards: list[list[str]] = []
    pending: dict[str, Array] = {}
    for i, m in enumerate(modules):
        if progress:
            progress(i, len(modules), m.name)
        found = _stored(checkpoint, m, layout, quantized, shift)
        if m.kept is None and len(m.members[0].shape) == 2 and grid_of(checkpoint, m.members[0]).kind != "float":
            size = f"{found[m.name].nbytes / 1e6:,.1f} MB"
            what = f"{m.name} is stored as {found[m.name].dtype.name}, the checkpoint's values exactly ({size})"
            notes.append(f"{what}: runtimes of {layout.name} look up floats")
        if pending and sum(a.nbytes for a in (*pending.values(), *found.values())) > SHARD_BYTES:
            shards.append(_flush(folder, len(shards), pending))
        pending |= found
    shards.append(_flush(folder, len(shards), pending))
    _name_shards(folder, shards)
    return notes


def _shifted(values: Array, shift: float) -> Array:
    """Norms' weights as the family's files count them.

    Raises:
        EdgeqError: one that single precision can't hold so.
    """
    moved: Array = values - np.float32(shift)
    if not np.array_equal(moved + np.float32(shift), values):
        raise EdgeqError("a norm's weight is lost in single precision when its one is taken off")
    return moved


def _stored(
    checkpoint: Weights, m: _Module, layout: Layout, quantized: Mapping[str, Kept], shift: float
) -> dict[str, Array]:
    loaded = [checkpoint.load(t.name) for t in m.members]
    if m.kept is None:
        whole = np.concatenate([dense(w) for w in loaded]) if len(loaded) > 1 else dense(loaded[0])
        return {m.name: exact(_shifted(whole, shift) if m.members[0].role == "norm" and shift else whole)}
    parts = layout.parts(_joined(loaded, m.kept.grid), m.kept, quantized)
    return {f"{m.stem}.{part}": array for part, array in parts.items()}


def _joined(loaded: list[Weight], grid: Grid) -> QuantizedTensor:
    """Matrices of one grid, their rows one below the other."""
    found = [w for w in loaded if isinstance(w, QuantizedTensor)]
    if len(found) == 1:
        return found[0]
    columns = zip(*(q.parameters.arrays() for q in found), strict=True)
    parameters = Parameters(*(None if c[0] is None else np.concatenate(c) for c in columns))  # type: ignore[arg-type]
    return QuantizedTensor.of(grid, np.concatenate([q.codes for q in found]), parameters)


def exact(values: Array) -> Array:
    """The values in the narrowest of half precision, bfloat16 and single precision that holds all of them."""
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if np.array_equal(half.astype(np.float32), values):
        return half
    if find_spec("ml_dtypes") is not None:
        import ml_dtypes

        brain: Array = values.astype(ml_dtypes.bfloat16)
        if np.array_equal(brain.astype(np.float32), values):
            return brain
    return values.astype(np.float32, copy=False)


def _flush(folder: Path, number: int, pending: dict[str, Array]) -> list[str]:
    """Write what has gathered; the names of its tensors."""
    names = list(pending)
    write_shard(folder / _partial(number), pending, {"format": "pt"})
    pending.clear()
    return names


def _partial(number: int) -> str:
    return f"part-{number}.safetensors"


def _name_shards(folder: Path, shards: list[list[str]]) -> None:
    """Give the files the names that Hugging Face's loaders look for, and write the index where there are several."""
    if len(shards) == 1:
        (folder / _partial(0)).replace(folder / "model.safetensors")
        return
    weight_map: dict[str, str] = {}
    total = 0
    for i, names in enumerate(shards):
        name = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        (folder / _partial(i)).replace(folder / name)
        total += (folder / name).stat().st_size
        weight_map |= dict.fromkeys(names, name)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", "utf-8")
