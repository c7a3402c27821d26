"""A checkpoint to a folder with `model.gguf`, which llama.cpp and all that builds on it load."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.artifact import MANIFEST, Artifact
from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.checkpoint.weights import Weight, Weights
from edgeq.decoder.decoder import check_supported
from edgeq.decoder.ops import Ability
from edgeq.errors import EdgeqError
from edgeq.exporters.folder import grid_of, manifest, positions, rope_switch, rounded_inputs, write_tokenizer
from edgeq.exporters.gguf.expressible import check_expressible, graph
from edgeq.exporters.gguf.metadata import deviations, metadata, rope_factors
from edgeq.exporters.gguf.modelfile import modelfile
from edgeq.exporters.gguf.storable import FLOATS, as_blocks, ggml_type, refuses
from edgeq.exporters.gguf.ternary import TYPES, ternary_blocks
from edgeq.exporters.gguf.vocabulary import vocabulary
from edgeq.files import new_folder, write_bytes, write_json
from edgeq.formats.ggml_blocks import to_blocks
from edgeq.model.ggml import GGML_TYPES
from edgeq.model.names import gguf_permuted, gguf_slices
from edgeq.model.spec import Attention, ModelSpec
from edgeq.model.tensors import TensorSpec, tensors
from edgeq.model.weights import SourceWeights
from edgeq.registry import Progress
from edgeq.scheme import F32

FILE = "model.gguf"
ABLE: frozenset[Ability] = frozenset({"experts", "sinks"})
_NUMBERS = {t.name: (number, t) for number, t in GGML_TYPES.items()}


@dataclass(frozen=True, slots=True)
class _Entry:
    """One tensor of the file, made of `parts`, one below the other."""

    name: str
    parts: tuple[TensorSpec, ...]
    type: str

    @property
    def shape(self) -> tuple[int, ...]:
        first = self.parts[0].shape
        if self.parts[0].role == "router" and first[0] == 1:  # of shared experts, a vector there
            return first[1:]
        return (sum(p.shape[0] for p in self.parts), *first[1:])

    @property
    def n_bytes(self) -> int:
        _, kind = _NUMBERS[self.type]
        return math.prod(self.shape) // kind.elements * kind.block_bytes


def export(
    checkpoint: Weights,
    out: Path,
    *,
    progress: Progress | None = None,
    force: bool = False,
    context: int | None = None,
    dtype: str = "auto",
    ternary_type: str = "tq2_0",
    plan: Mapping[str, Any] | None = None,
) -> Artifact:
    """Write the artifact folder `out`; it appears under that name only when it is whole.

    Args:
        context: longest sequence the file says the model is for; None: all that it was made for.
        dtype: of the matrices of a model that is not quantized: `auto` keeps the 16 bits of a source that has them,
            `f32` widens them.
        ternary_type: of ternary matrices: `tq2_0` (2.06 bits a weight, fast) or `tq1_0` (1.69 bits).

    Raises:
        EdgeqError: an architecture, tokenizer or grid that a GGUF file can't say, before anything is written; `out`
            exists without `force`; no space.
    """
    spec = checkpoint.spec
    check_supported(spec, ABLE)
    context = positions(spec, context)
    check_expressible(spec, context)
    if ternary_type.upper() not in TYPES:
        raise EdgeqError(f"no ternary type {ternary_type}", hint=f"Known: {', '.join(TYPES).lower()}")
    if rounded_inputs(checkpoint):
        what = "llama.cpp rounds the inputs of products in its own way, and a file can't say another"
        raise EdgeqError(what, where=spec.name, hint="Quantize the weights alone: rtn, gptq, awq, ...")
    entries = list(_entries(checkpoint, _float_type(checkpoint, dtype), ternary_type.upper()))
    sizes = Counter({e.type: 0 for e in entries})
    for e in entries:
        sizes[e.type] += math.prod(e.shape)
    tokenizer = checkpoint.tokenizer_files()
    keys = metadata(spec, sizes.most_common(1)[0][0], context) | vocabulary(tokenizer, spec)
    with new_folder(out, force=force) as folder:
        _write(folder / FILE, checkpoint, entries, keys, progress)
        write_tokenizer(tokenizer, folder)
        write_bytes(folder / "Modelfile", modelfile(FILE, keys, spec).encode())
        artifact = manifest(
            checkpoint,
            folder,
            runtime="llamacpp",
            context=context,
            facts=rope_switch(spec, context) | deviations(spec),
            options={"context": context, "activation_bits": activation_bits(entries)},
            plan=plan,
            versions={"gguf": version("gguf")},
        )
        write_json(folder / MANIFEST, artifact.to_json())
    return replace(artifact, path=out)


def activation_bits(entries: Iterable[_Entry]) -> int:
    """Of the inputs of the matrices: llama.cpp rounds those of quantized blocks to 8 bits, in groups of 32 or 256."""
    return 8 if any(e.type not in FLOATS for e in entries) else 32


def _float_type(checkpoint: Weights, dtype: str) -> str:
    """The type of matrices that are not quantized.

    Raises:
        EdgeqError: `dtype` is neither `auto` nor `f32`.
    """
    if dtype not in ("auto", "f32"):
        hint = "auto or f32; `edgeq quantize --bits 16` makes a checkpoint in half precision"
        raise EdgeqError(f"matrices that are not quantized can't be exported as {dtype}", hint=hint)
    source = checkpoint.spec.source_dtype.upper()
    kept = dtype == "auto" and isinstance(checkpoint, SourceWeights) and source in FLOATS
    return source if kept else "F32"


def _entries(checkpoint: Weights, float_type: str, ternary: str) -> Iterator[_Entry]:
    """The file's tensors in order, with the types they get."""
    spec = checkpoint.spec
    parts: dict[str, list[TensorSpec]] = {}
    slices = gguf_slices(spec)
    for t in tensors(spec):
        parts.setdefault(slices[t.name].name, []).append(t)
    for name, members in parts.items():
        grids = {grid_of(checkpoint, t) for t in members}
        for grid in grids:
            why = refuses(grid)
            if why is not None:
                raise EdgeqError(f"this checkpoint can't be exported to gguf: {why}", where=members[0].name)
        if len(grids) > 1:
            raise EdgeqError("llama.cpp keeps these matrices as one, which needs one grid", where=name)
        grid = grids.pop()
        kind = ggml_type(grid, ternary) if grid != F32 else float_type
        if len(members[0].shape) == 1:
            kind = "F32"
        elements = _NUMBERS[kind][1].elements
        if members[0].shape[-1] % elements:
            raise EdgeqError(
                f"{kind} needs rows of whole blocks of {elements}, this has {members[0].shape[-1]}",
                where=members[0].name,
            )
        yield _Entry(name, tuple(members), kind)


def _write(
    path: Path, checkpoint: Weights, entries: list[_Entry], keys: Mapping[str, Any], progress: Progress | None
) -> None:
    import gguf

    writer = gguf.GGUFWriter(path, graph(checkpoint.spec).name)
    for key, value in keys.items():
        _add(writer, key, value)
    factors = rope_factors(checkpoint.spec)
    for name, values in factors.items():
        writer.add_tensor_info(name, values.shape, values.dtype, values.nbytes)
    for e in entries:
        kind = gguf.GGMLQuantizationType(_NUMBERS[e.type][0])
        block = _NUMBERS[e.type][1]
        dtype = np.dtype({"F32": np.float32, "F16": np.float16}.get(e.type, np.uint8))
        as_bytes = (*e.shape[:-1], e.shape[-1] // block.elements * block.block_bytes)
        writer.add_tensor_info(e.name, as_bytes if dtype == np.uint8 else e.shape, dtype, e.n_bytes, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for values in factors.values():
        writer.write_tensor_data(values)
    for i, e in enumerate(entries):
        if progress:
            progress(i, len(entries), e.name)
        writer.write_tensor_data(_data(checkpoint, e))
    writer.close()


def _add(writer: Any, key: str, value: Any) -> None:
    if isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_string(key, value)


def _data(checkpoint: Weights, entry: _Entry) -> npt.NDArray[Any]:
    found = [_stored(checkpoint, t, entry.type) for t in entry.parts]
    return found[0] if len(found) == 1 else np.concatenate(found)


def _stored(checkpoint: Weights, t: TensorSpec, kind: str) -> npt.NDArray[Any]:
    """A tensor's bytes as the file holds them: Gemma's norms with their one, q and k with neighbours paired."""
    weight = _reordered(checkpoint.load(t.name), checkpoint.spec, t)
    if isinstance(weight, QuantizedTensor):
        return ternary_blocks(weight, kind) if kind in TYPES else to_blocks(as_blocks(weight, t.name))
    if t.role == "norm":
        weight = weight + np.float32(checkpoint.spec.norm_offset)
    return np.ascontiguousarray(_narrowed(weight, kind, t.name))


def _narrowed(weight: npt.NDArray[np.float32], kind: str, name: str) -> npt.NDArray[Any]:
    """In a float type that holds every value.

    Raises:
        EdgeqError: the type loses some, as where a file mixes dtypes.
    """
    if kind == "BF16":
        bits = np.ascontiguousarray(weight, np.float32).view(np.uint32)
        exact, narrow = not np.any(bits & np.uint32(0xFFFF)), (bits >> np.uint32(16)).astype("<u2").view(np.uint8)
    else:
        with np.errstate(over="ignore"):
            narrow = weight.astype(np.float16 if kind == "F16" else np.float32)
        exact = bool(np.array_equal(narrow.astype(np.float32), weight, equal_nan=True))
    if not exact:
        raise EdgeqError(f"{kind} does not hold all of this tensor's values", where=name, hint="Add --dtype f32")
    return narrow


def _reordered(weight: Weight, spec: ModelSpec, t: TensorSpec) -> Weight:
    """Rows of q and k with the two halves of a head interleaved, where llama.cpp rotates neighbours."""
    part = t.name.rpartition(".")[2]
    if part not in {"q", "k", "q_bias", "k_bias"} or not gguf_permuted(spec):
        return weight
    mixer = spec.layers[t.layer or 0].mixer
    assert isinstance(mixer, Attention)
    heads = mixer.heads if part[0] == "q" else mixer.kv_heads
    order = np.arange(t.shape[0]).reshape(heads, 2, -1).swapaxes(1, 2).reshape(-1)
    if not isinstance(weight, QuantizedTensor):
        return weight[order]
    rows = weight.parameters.rows(order)
    return QuantizedTensor.of(weight.grid, weight.codes[order], rows)
