"""A checkpoint to a folder that onnxruntime and onnxruntime-genai load."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from edgeq.artifact import MANIFEST, Artifact
from edgeq.checkpoint.weights import Weights
from edgeq.decoder.decoder import check_supported, decoder
from edgeq.errors import EdgeqError
from edgeq.estimate.onnx_grids import PACKS, Pack
from edgeq.exporters.folder import grid_of, manifest, positions, rope_switch, write_tokenizer
from edgeq.exporters.onnx import standard_ops
from edgeq.exporters.onnx.genai import genai_config, growing
from edgeq.exporters.onnx.graph import Graph
from edgeq.exporters.onnx.grids import refuses
from edgeq.exporters.onnx.moe import check_experts
from edgeq.exporters.onnx.onnx_ops import LOGITS_FROM, OnnxOps
from edgeq.exporters.onnx.standard_ops import StandardOps
from edgeq.files import new_folder, write_json
from edgeq.model.spec import Attention, Layer, ModelSpec, MoE
from edgeq.model.tensors import tensors
from edgeq.registry import Progress
from edgeq.scheme import Scheme

DIALECTS = ("contrib", "standard")


def export(
    checkpoint: Weights,
    out: Path,
    *,
    progress: Progress | None = None,
    force: bool = False,
    accuracy_level: int = 4,
    context: int | None = None,
    dialect: str = "contrib",
    pack: Pack = "fast",
    plan: Mapping[str, Any] | None = None,
) -> Artifact:
    """Write the artifact folder `out`; it appears under that name only when it is whole.

    Args:
        accuracy_level: 4 multiplies in int8 (fast); 0 keeps activations in float32 (slow, for comparisons).
        context: longest sequence to prepare for; None: all that the model was made for.
        dialect: `contrib` for onnxruntime's own fused operators, `standard` for ONNX's alone, which any runtime runs.
        pack: `fast` stores codes on the integer kernels that hold the same numbers, with more bits where there is no
            kernel for so few; `small` keeps their width, and a function of the model unpacks them at every run.

    Raises:
        EdgeqError: an architecture, shape or grid that onnxruntime's kernels can't run, before anything is written;
            `out` exists without `force`; no space.
    """
    spec = checkpoint.spec
    context = positions(spec, context)
    if accuracy_level not in (0, 4):
        raise EdgeqError(f"accuracy level {accuracy_level} is not known", hint="0 (float32) or 4 (int8)")
    for what, value, known in (("dialect", dialect, DIALECTS), ("packing", pack, PACKS)):
        if value not in known:
            raise EdgeqError(f"the {what} {value!r} is not known", hint=f"One of {', '.join(known)}")
    _check(checkpoint, dialect)
    tokenizer = checkpoint.tokenizer_files()  # refuses a damaged one before anything is written
    options = {"accuracy_level": accuracy_level, "context": context, "dialect": dialect, "pack": pack}
    with new_folder(out, force=force) as folder:
        with _graph(folder, spec, dialect) as graph:
            done = _counter(spec, progress)
            if dialect == "standard":
                ops: OnnxOps = StandardOps(graph, checkpoint, pack=pack, positions=context, done=done)
            else:
                ops = OnnxOps(graph, checkpoint, accuracy_level=accuracy_level, pack=pack, positions=context, done=done)
            ops.finish(decoder(ops, spec, ops.ids))
            graph.save()
        config = genai_config(spec, context)
        write_json(folder / "genai_config.json", growing(config, accuracy_level) if dialect == "standard" else config)
        write_tokenizer(tokenizer, folder)
        artifact = manifest(
            checkpoint,
            folder,
            runtime="onnxruntime",
            context=context,
            options=options,
            facts=_facts(spec, context),
            plan=plan,
            versions={"onnx": onnx.__version__},
        )
        write_json(folder / MANIFEST, artifact.to_json())
    return replace(artifact, path=out)


def _check(checkpoint: Weights, dialect: str) -> None:
    """Everything that could be refused, before a file is written."""
    spec = checkpoint.spec
    where = spec.location or spec.name
    check_supported(spec, OnnxOps.able if dialect == "contrib" else StandardOps.able)
    for layer in {x.mixer for x in spec.layers} if dialect == "contrib" else ():  # limits of GroupQueryAttention
        assert isinstance(layer, Attention)
        unit = 8 if layer.rope is None else 16
        if layer.head_dim % unit:
            raise EdgeqError(f"onnxruntime needs heads of a multiple of {unit}, not {layer.head_dim}", where=where)
        if layer.rope is not None and layer.rope.dim % 16:
            raise EdgeqError(f"onnxruntime can't rotate {layer.rope.dim} dimensions, only multiples of 16", where=where)
    if len({(x.mixer.kv_heads, x.mixer.head_dim) for x in spec.layers if isinstance(x.mixer, Attention)}) > 1:
        raise EdgeqError("layers with caches of different shapes can't be exported yet", where=where)
    scheme = getattr(checkpoint, "scheme", None)
    if isinstance(scheme, Scheme) and scheme.act_bits != 16:
        raise EdgeqError(
            f"this checkpoint has {scheme.act_bits}-bit activations, which edgeq can't export to onnx yet",
            where=where,
            hint="`edgeq eval` measures it; quantize with --activations float to export",
        )
    for grid in {grid_of(checkpoint, t) for t in tensors(spec)}:
        if reason := refuses(grid):
            raise EdgeqError(f"this checkpoint can't be exported to onnx: {reason}", where=where)
    check_experts(checkpoint)


def _graph(folder: Path, spec: ModelSpec, dialect: str) -> Graph:
    if dialect == "standard":
        return Graph(folder, spec.family, ir=standard_ops.IR_VERSION, opset=standard_ops.OPSET, domains=())
    return Graph(folder, spec.family)


def _counter(spec: ModelSpec, progress: Progress | None) -> Callable[[str], None]:
    total, done = sum(_steps(x) for x in spec.layers) + 1 + (not spec.tied), 0

    def count(name: str) -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, total, name)

    return count


def _steps(layer: Layer) -> int:
    """Products of a layer that are counted as they are written."""
    if isinstance(layer.ffn, MoE):
        return 5 if layer.ffn.shared_intermediate else 3
    return 4


def _facts(spec: ModelSpec, context: int) -> dict[str, Any]:
    """What the session needs to know of this graph beside what every session does."""
    mixers = [x.mixer for x in spec.layers if isinstance(x.mixer, Attention)]
    facts: dict[str, Any] = {"logits_from": LOGITS_FROM}
    if any(m.window for m in mixers):
        facts["windows"] = [m.window for m in mixers]
    return facts | rope_switch(spec, context)
