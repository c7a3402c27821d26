"""What every exporter does alike: the folder's tokenizer and manifest, the model's facts, the asked-for context."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeq import __version__
from edgeq.artifact import Artifact, describe_files
from edgeq.checkpoint.activation import ActivationGrid
from edgeq.checkpoint.store import Checkpoint
from edgeq.checkpoint.weights import Weights, activation_of
from edgeq.decoder.rope import switch_length
from edgeq.errors import EdgeqError
from edgeq.files import write_bytes
from edgeq.model.spec import Attention, Layer, ModelSpec, MoE
from edgeq.model.tensors import TensorSpec, tensors
from edgeq.scheme import F32, Grid, Scheme


def positions(spec: ModelSpec, context: int | None) -> int:
    """The longest sequence to prepare for; None: all that the model was made for.

    Raises:
        EdgeqError: out of the model's range.
    """
    if context is None:
        return spec.max_positions
    if not 0 < context <= spec.max_positions:
        raise EdgeqError(f"a context of {context} is out of range", hint=f"The model allows 1 to {spec.max_positions}")
    return context


def grid_of(checkpoint: Weights, tensor: TensorSpec) -> Grid:
    """The grid a tensor is stored on, without reading it; float32 for a source that is not quantized."""
    if isinstance(checkpoint, Checkpoint):
        return checkpoint.manifest.tensors[tensor.name].grid
    scheme = getattr(checkpoint, "scheme", None)
    if isinstance(scheme, Scheme) and tensor.linear:
        return scheme.linear
    return scheme.embed if isinstance(scheme, Scheme) and tensor.role == "embed" else F32


def grids_of(checkpoint: Weights) -> list[Grid]:
    """The grids of the model's tensors, each once, in the model's order: refusals then name the same one every time."""
    return list(dict.fromkeys(grid_of(checkpoint, t) for t in tensors(checkpoint.spec)))


def rounded_inputs(checkpoint: Weights) -> list[ActivationGrid]:
    """The grids that the inputs of linear layers are rounded to, each once; none where they stay floats."""
    names = (t.name for t in tensors(checkpoint.spec) if t.linear and t.role != "head")
    found = dict.fromkeys(activation_of(checkpoint, name) for name in names)
    return [grid for grid in found if grid is not None]


def input_options(checkpoint: Weights) -> dict[str, str]:
    """What a manifest's options say of rounded inputs: their kinds under `activations`, which limits what a
    verification allows."""
    kinds = sorted({grid.kind for grid in rounded_inputs(checkpoint)})
    return {"activations": "+".join(kinds)} if kinds else {}


def products(layer: Layer) -> int:
    """Products of a layer, which are counted as they are written; all routed experts are one."""
    if isinstance(layer.ffn, MoE):
        return 5 if layer.ffn.shared_intermediate else 3
    return 4


def write_tokenizer(files: Mapping[str, Path | bytes], folder: Path) -> None:
    for name, content in files.items():
        if isinstance(content, bytes):
            write_bytes(folder / name, content)
        else:
            shutil.copyfile(content, folder / name)


def manifest(
    checkpoint: Weights,
    folder: Path,
    *,
    runtime: str,
    context: int,
    options: Mapping[str, Any],
    facts: Mapping[str, Any] | None = None,
    plan: Mapping[str, Any] | None = None,
    versions: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
) -> Artifact:
    """Of a folder whose files are all written.

    Args:
        context: what `positions` gave.
        options: what the export was asked for.
        facts: of the model, beside those that every session needs.
        versions: of the packages that wrote it, beside edgeq's.
        notes: what its user should know, a sentence each.
    """
    scheme = getattr(checkpoint, "scheme", None)
    return Artifact(
        path=folder,
        runtime=runtime,
        name=checkpoint.spec.name,
        scheme=scheme.name if isinstance(scheme, Scheme) else "fp32",
        model=_facts(checkpoint.spec, context) | dict(facts or {}),
        files=describe_files(folder),
        plan=dict(plan or {}),
        checkpoint=_origin(checkpoint),
        versions={"edgeq": __version__, **(versions or {})},
        options=dict(options),
        notes=list(notes),
    )


def rope_switch(spec: ModelSpec, context: int) -> dict[str, int]:
    """`rope_switch` where sequences beyond so many tokens, within the context, use LongRoPE's other frequencies."""
    mixers = [x.mixer for x in spec.layers if isinstance(x.mixer, Attention)]
    ropes = {m.rope for m in mixers if m.rope is not None and m.rope.kind == "longrope"}
    switch = next((switch_length(rope, spec.max_positions) for rope in ropes), None)
    return {"rope_switch": switch} if switch is not None and switch < context else {}


def _origin(checkpoint: Weights) -> str | None:
    """Where the checkpoint lies, or the name it was asked for by."""
    source = getattr(checkpoint, "path", None) or checkpoint.spec.location
    if source is None:
        return None
    return str(Path(source).resolve()) if Path(source).exists() else str(source)


def _facts(spec: ModelSpec, context: int) -> dict[str, Any]:
    first = next(x.mixer for x in spec.layers if isinstance(x.mixer, Attention))
    return {
        "family": spec.family,
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.hidden_size,
        "layers": spec.n_layers,
        "heads": first.heads,
        "kv_heads": first.kv_heads,
        "head_dim": first.head_dim,
        "max_positions": context,
        "bos_id": spec.bos_id,
        "eos_ids": list(spec.eos_ids),
        "pad_id": spec.pad_id,
    }
