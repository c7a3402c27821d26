"""A checkpoint to a folder that OpenVINO, openvino-genai and optimum-intel load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import openvino as ov

from edgeq.artifact import MANIFEST, Artifact
from edgeq.checkpoint.weights import Weights
from edgeq.decoder.decoder import check_supported, decoder
from edgeq.decoder.rope import switch_length
from edgeq.errors import EdgeqError
from edgeq.exporters.folder import grid_of, input_options, manifest, products, write_tokenizer
from edgeq.exporters.openvino import tokenizer as tokenizer_models
from edgeq.exporters.openvino.config import config, generation_config
from edgeq.exporters.openvino.experts import check_experts
from edgeq.exporters.openvino.openvino_ops import OpenVinoOps
from edgeq.exporters.openvino.options import Settings, settled
from edgeq.exporters.openvino.spool import Spool
from edgeq.exporters.openvino.storable import check
from edgeq.files import new_folder, write_json
from edgeq.model.spec import Attention, ModelSpec
from edgeq.model.tensors import tensors
from edgeq.registry import Progress

FILE = "openvino_model.xml"


def export(
    checkpoint: Weights,
    out: Path,
    *,
    progress: Progress | None = None,
    force: bool = False,
    context: int | None = None,
    device: str = "cpu",
    kv_dtype: str | None = None,
    dynamic_quantization: int | None = None,
    plan: Mapping[str, Any] | None = None,
) -> Artifact:
    """Write the artifact folder `out`; it appears under that name only when it is whole.

    Args:
        context: longest sequence to prepare for; None: all that the model was made for.
        device: what it is meant for, `cpu`, `gpu` or `npu`: what that can't run is refused.
        kv_dtype: of the key/value cache; None: 8 bits on the CPU, float16 on the others.
        dynamic_quantization: input channels that share a scale where the plugin rounds the inputs of compressed
            matrices to 8 bits (None: 32); 0 keeps them float.

    Raises:
        EdgeqError: an architecture, grid or option that OpenVINO's plugins can't run, before anything is written;
            `out` exists without `force`; no space.
    """
    spec = checkpoint.spec
    check_supported(spec, OpenVinoOps.able)
    for t in tensors(spec):
        check(grid_of(checkpoint, t), t.shape[-1], t.name, expert=t.expert)
    check_experts(checkpoint)
    settings = settled(
        checkpoint, context=context, device=device, kv_dtype=kv_dtype, dynamic_quantization=dynamic_quantization
    )
    tokenizer = checkpoint.tokenizer_files()  # refuses a damaged one before anything is written
    with new_folder(out, force=force) as folder:
        _write_model(checkpoint, folder, settings, progress)
        write_json(folder / "config.json", config(spec, settings.context))
        if "generation_config.json" not in tokenizer:
            write_json(folder / "generation_config.json", generation_config(spec))
        write_tokenizer(tokenizer, folder)
        missing = tokenizer_models.write_models(folder)
        artifact = manifest(
            checkpoint,
            folder,
            runtime="openvino",
            context=settings.context,
            options=settings.json() | input_options(checkpoint),
            facts=_facts(spec, settings.context) | ({} if missing is None else {"no_tokenizer_models": missing}),
            plan=plan,
            versions={"openvino": ov.__version__},
        )
        write_json(folder / MANIFEST, artifact.to_json())
    return replace(artifact, path=out)


def _write_model(checkpoint: Weights, folder: Path, settings: Settings, progress: Progress | None) -> None:
    spec = checkpoint.spec
    total, done = sum(products(x) for x in spec.layers) + 1 + (not spec.tied), 0

    def count(name: str) -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, total, name)

    with Spool(folder) as spool:
        ops = OpenVinoOps(checkpoint, spool, longest=settings.context, done=count)
        model = ops.model(decoder(ops, spec, ops.ids))
        for name, value in settings.properties().items():
            model.set_rt_info(value, ["runtime_options", name])
        try:
            ov.serialize(model, folder / FILE)
        except RuntimeError as error:
            raise EdgeqError(f"OpenVINO can't write the model: {str(error).splitlines()[-1]}", where=folder) from error
        del model, ops


def _facts(spec: ModelSpec, context: int) -> dict[str, Any]:
    """What the session needs to know of this model beside what every session does."""
    mixers = [x.mixer for x in spec.layers if isinstance(x.mixer, Attention)]
    facts: dict[str, Any] = {}
    if any(m.window for m in mixers):
        facts["windows"] = [m.window for m in mixers]
    switches = {switch_length(m.rope, spec.max_positions) for m in mixers if m.rope and m.rope.kind == "longrope"}
    if switches and (switch := next(iter(switches))) is not None and switch < context:
        facts["rope_switch"] = switch
    return facts
