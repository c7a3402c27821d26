"""A checkpoint to a folder that onnxruntime and onnxruntime-genai load."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from edgeq.artifact import MANIFEST, Artifact
from edgeq.checkpoint.weights import Weights
from edgeq.decoder.decoder import decoder
from edgeq.estimate.onnx_grids import Pack
from edgeq.exporters.folder import input_options, manifest, positions, products, rope_switch, write_tokenizer
from edgeq.exporters.onnx import standard_ops
from edgeq.exporters.onnx.checks import Settings, check
from edgeq.exporters.onnx.genai import genai_config, standard
from edgeq.exporters.onnx.graph import Graph
from edgeq.exporters.onnx.kv_cache import Caches, calibrated
from edgeq.exporters.onnx.onnx_ops import LOGITS_FROM, OnnxOps
from edgeq.exporters.onnx.ort_format import convert
from edgeq.exporters.onnx.shared_cache import SharedCacheOps
from edgeq.exporters.onnx.standard_ops import StandardOps
from edgeq.files import new_folder, write_json
from edgeq.model.spec import Attention, ModelSpec
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
    dialect: str = "contrib",
    pack: Pack = "fast",
    kv_dtype: str | None = None,
    kv_text: str | Path | None = None,
    dtype: str = "float32",
    format: str = "onnx",
    kv_buffer: str | None = None,
    plan: Mapping[str, Any] | None = None,
) -> Artifact:
    """Write the artifact folder `out`; it appears under that name only when it is whole.

    Args:
        accuracy_level: 4 multiplies in int8 (fast); 0 keeps activations in float32 (slow, for comparisons).
        activation_scales: of 8-bit dynamic inputs: one a `token` as the checkpoint means it, or one a `tensor`, as
            onnxruntime's fused kernel has it.
        context: longest sequence to prepare for; None: all that the model was made for.
        dialect: `contrib` for onnxruntime's own fused operators, `standard` for ONNX's alone, which any runtime runs.
        pack: `fast` stores codes on the integer kernels that hold the same numbers, with more bits where there is no
            kernel for so few; `small` keeps their width, and a function of the model unpacks them at every run.
        kv_dtype: of the KV cache: `f32`, `f16`, `int8` or `int4`; None: that of the activations.
        kv_text: file that an integer cache's ranges are taken from; None: the passages that come with edgeq.
        dtype: of activations, scales, tables and float weights: `float32`, or `float16` for devices that compute in it.
        format: `onnx`, or `ort`, onnxruntime's own, which its minimal builds load: one file of less than 2 GiB.

    Raises:
        EdgeqError: an architecture, shape or grid that onnxruntime's kernels can't run, before anything is written;
            `out` exists without `force`; no space.
    """
    spec = checkpoint.spec
    context = positions(spec, context)
    settings = Settings(accuracy_level, activation_scales, dialect, pack, kv_dtype, kv_text, dtype, format, kv_buffer)
    kinds = check(checkpoint, settings)
    tokenizer = checkpoint.tokenizer_files()  # refuses a damaged one before anything is written
    with new_folder(out, force=force) as folder:
        caches = calibrated(checkpoint, settings.cache, kv_text, context)
        _write_graph(checkpoint, folder, settings, caches, context, progress)
        if format == "ort":
            convert(folder, checkpoint, rounded_inputs=bool(kinds))
        config = genai_config(spec, context, f"model.{format}", rounded_inputs=bool(kinds))
        if settings.standard:
            config = standard(config, accuracy_level, grows=settings.buffer == "growing")
        write_json(folder / "genai_config.json", config)
        write_tokenizer(tokenizer, folder)
        artifact = manifest(
            checkpoint,
            folder,
            runtime="onnxruntime",
            context=context,
            options=_options(settings, kinds, context) | input_options(checkpoint),
            facts=_facts(spec, context),
            plan=plan,
            versions={"onnx": onnx.__version__},
        )
        write_json(folder / MANIFEST, artifact.to_json())
    return replace(artifact, path=out)


def _options(settings: Settings, kinds: set[str], context: int) -> dict[str, Any]:
    names = ("accuracy_level", "dialect", "pack", "dtype", "format")
    options: dict[str, Any] = {"context": context} | {n: getattr(settings, n) for n in names}
    options["kv_dtype"] = settings.cache
    if settings.standard:
        options["kv_buffer"] = settings.buffer
    if "dynamic" in kinds:
        options["activation_scales"] = settings.activation_scales
    return options


def _write_graph(
    checkpoint: Weights, folder: Path, settings: Settings, caches: Caches, context: int, progress: Progress | None
) -> None:
    spec = checkpoint.spec
    alike: dict[str, Any] = {"positions": context, "done": _counter(spec, progress), "pack": settings.pack}
    alike |= {"activation_scales": settings.activation_scales, "caches": caches}
    with _graph(folder, spec, settings) as graph:
        ops: OnnxOps
        if settings.standard:
            kind = SharedCacheOps if settings.buffer == "shared" else StandardOps
            ops = kind(graph, checkpoint, **alike)
        else:
            ops = OnnxOps(graph, checkpoint, accuracy_level=settings.accuracy_level, **alike)
        ops.finish(decoder(ops, spec, ops.ids))
        graph.save()


def _graph(folder: Path, spec: ModelSpec, settings: Settings) -> Graph:
    if settings.standard:
        versions: dict[str, Any] = {"ir": standard_ops.IR_VERSION, "opset": standard_ops.OPSET, "domains": ()}
        return Graph(folder, spec.family, floats=settings.dtype, **versions)
    return Graph(folder, spec.family, floats=settings.dtype)


def _counter(spec: ModelSpec, progress: Progress | None) -> Callable[[str], None]:
    total, done = sum(products(x) for x in spec.layers) + 1 + (not spec.tied), 0

    def count(name: str) -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, total, name)

    return count


def _facts(spec: ModelSpec, context: int) -> dict[str, Any]:
    """What the session needs to know of this graph beside what every session does."""
    mixers = [x.mixer for x in spec.layers if isinstance(x.mixer, Attention)]
    facts: dict[str, Any] = {"logits_from": LOGITS_FROM}
    if any(m.window for m in mixers):
        facts["windows"] = [m.window for m in mixers]
    return facts | rope_switch(spec, context)
