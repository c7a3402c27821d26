"""A checkpoint to a folder that onnxruntime and onnxruntime-genai load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from edgeq.artifact import MANIFEST, Artifact
from edgeq.checkpoint.weights import Weights, activation_of
from edgeq.decoder.decoder import check_supported, decoder
from edgeq.decoder.rope import switch_length
from edgeq.errors import EdgeqError
from edgeq.exporters.folder import grid_of, manifest, positions, write_tokenizer
from edgeq.exporters.onnx.activations import SCALES, refuses_activation
from edgeq.exporters.onnx.genai import genai_config
from edgeq.exporters.onnx.graph import Graph
from edgeq.exporters.onnx.grids import refuses
from edgeq.exporters.onnx.kv_cache import Caches, calibrated, check_cache
from edgeq.exporters.onnx.onnx_ops import LOGITS_FROM, OnnxOps
from edgeq.files import new_folder, write_json
from edgeq.model.spec import Attention, ModelSpec
from edgeq.model.tensors import tensors
from edgeq.registry import Progress


def export(
    checkpoint: Weights,
    out: Path,
    *,
    progress: Progress | None = None,
    force: bool = False,
    accuracy_level: int = 4,
    activation_scales: str = "token",
    context: int | None = None,
    kv_dtype: str = "f32",
    kv_text: str | Path | None = None,
    plan: Mapping[str, Any] | None = None,
) -> Artifact:
    """Write the artifact folder `out`; it appears under that name only when it is whole.

    Args:
        accuracy_level: 4 multiplies in int8 (fast); 0 keeps activations in float32 (slow, for comparisons).
        activation_scales: of 8-bit dynamic inputs: one a `token` as the checkpoint means it, or one a `tensor`, as
            onnxruntime's fused kernel has it.
        kv_dtype: of the KV cache: `f32`, `f16`, `int8` or `int4`.
        kv_text: file that an integer cache's ranges are taken from; None: the passages that come with edgeq.
        context: longest sequence to prepare for; None: all that the model was made for.

    Raises:
        EdgeqError: an architecture, shape or grid that onnxruntime's kernels can't run, before anything is written;
            `out` exists without `force`; no space.
    """
    spec = checkpoint.spec
    context = positions(spec, context)
    if accuracy_level not in (0, 4):
        raise EdgeqError(f"accuracy level {accuracy_level} is not known", hint="0 (float32) or 4 (int8)")
    kinds = _check(checkpoint)
    if activation_scales not in SCALES:
        raise EdgeqError(f"activation scales {activation_scales!r} are not known", hint=f"One of {', '.join(SCALES)}")
    if activation_scales != "token" and "dynamic" not in kinds:
        raise EdgeqError("this checkpoint has no dynamic activations to scale", hint="Leave --activation-scales out")
    tokenizer = checkpoint.tokenizer_files()  # refuses a damaged one before anything is written
    check_cache(kv_dtype, kv_text)
    options: dict[str, Any] = {"accuracy_level": accuracy_level, "context": context, "kv_dtype": kv_dtype}
    if kinds:
        options["activations"] = "+".join(sorted(kinds))
    if "dynamic" in kinds:
        options["activation_scales"] = activation_scales
    with new_folder(out, force=force) as folder:
        caches = calibrated(checkpoint, kv_dtype, kv_text, context)
        _write_graph(checkpoint, folder, accuracy_level, activation_scales, caches, context, progress)
        write_json(folder / "genai_config.json", genai_config(spec, context, rounded_inputs=bool(kinds)))
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


def _check(checkpoint: Weights) -> set[str]:
    """Refuses everything that could be refused, before a file is written; the kinds of rounded inputs there are."""
    spec = checkpoint.spec
    where = spec.location or spec.name
    check_supported(spec)
    for layer in {x.mixer for x in spec.layers}:
        assert isinstance(layer, Attention)
        unit = 8 if layer.rope is None else 16
        if layer.head_dim % unit:
            raise EdgeqError(f"onnxruntime needs heads of a multiple of {unit}, not {layer.head_dim}", where=where)
        if layer.rope is not None and layer.rope.dim % 16:
            raise EdgeqError(f"onnxruntime can't rotate {layer.rope.dim} dimensions, only multiples of 16", where=where)
    if len({(x.mixer.kv_heads, x.mixer.head_dim) for x in spec.layers if isinstance(x.mixer, Attention)}) > 1:
        raise EdgeqError("layers with caches of different shapes can't be exported yet", where=where)
    for grid in {grid_of(checkpoint, t) for t in tensors(spec)}:
        if reason := refuses(grid):
            raise EdgeqError(f"this checkpoint can't be exported to onnx: {reason}", where=where)
    inputs = {activation_of(checkpoint, t.name) for t in tensors(spec) if t.linear and t.role != "head"}
    for rounded in inputs - {None}:
        if rounded is not None and (reason := refuses_activation(rounded)):
            raise EdgeqError(f"this checkpoint can't be exported to onnx: {reason}", where=where)
    return {rounded.kind for rounded in inputs if rounded is not None}


def _write_graph(
    checkpoint: Weights,
    folder: Path,
    accuracy_level: int,
    activation_scales: str,
    caches: Caches,
    context: int,
    progress: Progress | None,
) -> None:
    spec = checkpoint.spec
    total, done = 4 * spec.n_layers + 1 + (not spec.tied), 0

    def count(name: str) -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, total, name)

    with Graph(folder, spec.family) as graph:
        ops = OnnxOps(
            graph,
            checkpoint,
            accuracy_level=accuracy_level,
            positions=context,
            done=count,
            activation_scales=activation_scales,
            caches=caches,
        )
        ops.finish(decoder(ops, spec, ops.ids))
        graph.save()


def _facts(spec: ModelSpec, context: int) -> dict[str, Any]:
    """What the session needs to know of this graph beside what every session does."""
    mixers = [x.mixer for x in spec.layers if isinstance(x.mixer, Attention)]
    facts: dict[str, Any] = {"logits_from": LOGITS_FROM}
    if any(m.window for m in mixers):
        facts["windows"] = [m.window for m in mixers]
    switches = {switch_length(m.rope, spec.max_positions) for m in mixers if m.rope and m.rope.kind == "longrope"}
    if switches and (switch := next(iter(switches))) is not None and switch < context:
        facts["rope_switch"] = switch
    return facts
