"""A checkpoint to a Hugging Face folder: `config.json`, safetensors, tokenizer. The same for every layout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.amounts import amount
from edgeq.artifact import MANIFEST, Artifact
from edgeq.checkpoint.shard import write_shard
from edgeq.checkpoint.tensor import Parameters, QuantizedTensor
from edgeq.checkpoint.weights import Weight, Weights, dense
from edgeq.errors import EdgeqError
from edgeq.exporters.folder import grid_of, manifest, positions, write_tokenizer
from edgeq.exporters.huggingface.layouts import HEAD, Kept, Layout
from edgeq.exporters.huggingface.modules import Module, modules, refused
from edgeq.exporters.stacked import expert_of
from edgeq.files import new_folder, write_json
from edgeq.formats.uniform import Array
from edgeq.model.config import read_config
from edgeq.model.hf_config import config_of, norm_shift
from edgeq.model.spec import ModelSpec
from edgeq.model.tensors import TensorSpec
from edgeq.registry import Progress
from edgeq.scheme import Grid

SHARD_BYTES = 1 << 30  # held in memory until a file is full
INDEX = "model.safetensors.index.json"
# Families whose hidden states overflow half precision: runtimes that want 16 bits take bfloat16 by themselves.
_OVERFLOW = ("gemma2", "gemma3_text")


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
    written = list(modules(checkpoint, layout))
    quantized = {m.stem: m.kept for m in written if m.kept is not None}
    floats = [m.stem for m in written if m.float_linear] + ([HEAD] if spec.tied else [])
    if not quantized and layout.name != "compressed-tensors":
        raise EdgeqError(f"nothing in this model is quantized, {layout.name} has nothing to store", where=spec.name)
    why = layout.refuses_model(quantized)
    if why is not None:
        raise refused(layout, why, spec.name)
    config["dtype"] = config["torch_dtype"] = _dtype(spec, quantized)
    if quantized:
        config["quantization_config"] = layout.config(quantized, floats)
    tokenizer = checkpoint.tokenizer_files()
    with new_folder(out, force=force) as folder:
        dequantized = _write_weights(folder, checkpoint, written, layout, quantized, progress)
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


def _dtype(spec: ModelSpec, quantized: Mapping[str, Kept]) -> str:
    """What runtimes compute in unless they are told otherwise: half precision, which holds the scales exactly."""
    half = all(k.uniform.scale_dtype == "f16" for k in quantized.values())
    return "float16" if quantized and half and spec.family not in _OVERFLOW else "float32"


def _write_weights(
    folder: Path,
    checkpoint: Weights,
    written: list[Module],
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
    read = _OneAtATime(checkpoint)
    for i, m in enumerate(written):
        if progress:
            progress(i, len(written), m.name)
        found = _stored(read, m, layout, quantized, shift)
        if m.kept is None and len(m.members[0].shape) == 2 and grid_of(checkpoint, m.members[0]).kind != "float":
            size = f"{amount(found[m.name].nbytes)}"
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


class _OneAtATime:
    """The tensors of a checkpoint; the last one stays in memory, since many modules are parts of stacked experts."""

    def __init__(self, checkpoint: Weights) -> None:
        self._checkpoint = checkpoint
        self._last: tuple[str, Weight] | None = None

    def load(self, m: Module, t: TensorSpec) -> Weight:
        """The module's part of one of its tensors."""
        if self._last is None or self._last[0] != t.name:
            self._last = None
            self._last = t.name, self._checkpoint.load(t.name)
        whole = self._last[1]
        if m.expert is not None:
            return expert_of(whole, m.expert, t.shape[0])
        return dense(whole).reshape(t.shape) if t.expert else whole


def _stored(
    read: _OneAtATime, m: Module, layout: Layout, quantized: Mapping[str, Kept], shift: float
) -> dict[str, Array]:
    loaded = [read.load(m, t) for t in m.members]
    if m.kept is None:
        whole = _stacked(m, loaded) if m.members[0].expert and m.expert is None else _below(loaded)
        return {m.name: exact(_shifted(whole, shift) if m.members[0].role == "norm" and shift else whole)}
    parts = layout.parts(_joined(loaded, m.kept.grid), m.kept, quantized)
    return {f"{m.stem}.{part}": array for part, array in parts.items()}


def _below(loaded: list[Weight]) -> Array:
    """One below the other."""
    return np.concatenate([dense(w) for w in loaded]) if len(loaded) > 1 else dense(loaded[0])


def _stacked(m: Module, loaded: list[Weight]) -> Array:
    """Experts (experts, rows, columns) or their biases (experts, rows), the rows of two one below the other or in
    turns, as one tensor."""
    values = [dense(w) for w in loaded]
    if not m.transposed:
        return np.concatenate(values, axis=1)
    turns = np.stack(values, 2).reshape(len(values[0]), -1, *values[0].shape[2:])
    return np.ascontiguousarray(turns.swapaxes(1, -1)) if turns.ndim == 3 else turns


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
