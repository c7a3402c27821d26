"""A Hugging Face `config.json` (transformers 4 or 5) becomes a ModelSpec. Never reads a weight."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from edgeq.errors import EdgeqError
from edgeq.model.blocks import LayersReader
from edgeq.model.blocks_moe import (
    DeepseekReader,
    GptOssReader,
    GraniteMoeReader,
    MambaReader,
    MixtralReader,
    OlmoeReader,
    QwenMoeReader,
    QwenNextReader,
)
from edgeq.model.families import DEFAULTS
from edgeq.model.fields import MAX_LAYERS, Fields
from edgeq.model.spec import ModelSpec, NormLayout

# Multimodal wrappers whose language model is described in `text_config`.
_WRAPPERS = {
    "gemma3": "gemma3_text",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
    "mistral3": "mistral",
}
_READERS: dict[str, Callable[[Fields], LayersReader]] = {
    "mixtral": MixtralReader,
    "qwen2_moe": QwenMoeReader,
    "qwen3_moe": QwenMoeReader,
    "olmoe": OlmoeReader,
    "qwen3_next": QwenNextReader,
    "qwen3_5_text": QwenNextReader,
    "qwen3_5_moe_text": QwenNextReader,
    "gpt_oss": GptOssReader,
    "deepseek_v2": DeepseekReader,
    "deepseek_v3": DeepseekReader,
    "granitemoe": GraniteMoeReader,
    "granitemoeshared": GraniteMoeReader,
    "granitemoehybrid": GraniteMoeReader,
    "mamba": MambaReader,
    "mamba2": MambaReader,
}
FAMILIES = tuple(sorted(DEFAULTS))
_LAYOUTS: dict[str, NormLayout] = {
    "olmo2": "post",
    "olmo3": "post",
    "gemma2": "sandwich",
    "gemma3_text": "sandwich",
}
_OFFSET_NORMS = {"gemma2", "gemma3_text", "qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"}
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
_DTYPES = {"bfloat16": "bf16", "float16": "f16", "float32": "f32", "float64": "f64"}


def read_config(data: Any, *, name: str, where: object = None) -> ModelSpec:
    """The architecture that a parsed `config.json` describes.

    Args:
        data: the parsed JSON, untrusted.
        name: what to call the model.
        where: the file, for messages.

    Raises:
        EdgeqError: a field is missing, wrong, or contradicts another; or the architecture is unknown.
    """
    try:
        return _read(data, name, where)
    except RecursionError as error:
        raise EdgeqError("the configuration is nested too deeply", where=where) from error


def family_of(data: Any, where: object = None) -> str:
    """The `model_type` of the language model in a config; an empty string when it names none."""
    return text_fields(data, where).text("model_type", "")


def text_fields(data: Any, where: object = None) -> Fields:
    """The language model's part of a config, with what only the wrapper states."""
    outer = Fields(data, where)
    kind = outer.text("model_type", "")
    inner = outer.child("text_config") if kind in _WRAPPERS or kind not in DEFAULTS else None
    if inner is None:
        return outer
    kept = {k: outer.data[k] for k in ("tie_word_embeddings", "torch_dtype", "dtype") if k in outer.data}
    # The wrapper's special tokens are those that generation goes by.
    ids = {k: outer.data[k] for k in ("bos_token_id", "eos_token_id", "pad_token_id") if outer.has(k)}
    if outer.has("quantization_config"):
        ids["quantization_config"] = outer.data["quantization_config"]
    merged = {"model_type": _WRAPPERS.get(kind, kind), **kept, **inner.data, **ids}
    return Fields(merged, where)


def _read(data: Any, name: str, where: object) -> ModelSpec:
    given = text_fields(data, where)
    family = given.text("model_type", "")
    if family not in DEFAULTS:
        what = f"unknown architecture {family!r}" if family else "model_type is missing"
        raise EdgeqError(what, where=where, hint=f"Known: {', '.join(FAMILIES)}")
    for needed in ("hidden_size", "num_hidden_layers"):
        given.integer(needed)
    fields = Fields({**DEFAULTS[family], **_renamed(given, DEFAULTS[family])}, where)
    reader = _READERS.get(family, LayersReader)(fields)
    hidden = fields.integer("hidden_size")
    ids = fields.ids("bos_token_id")
    return ModelSpec(
        name=name,
        family=family,
        hidden_size=hidden,
        vocab_size=fields.integer("vocab_size"),
        layers=tuple(reader.layer(i) for i in range(fields.integer("num_hidden_layers", high=MAX_LAYERS))),
        tied=fields.flag("tie_word_embeddings"),
        max_positions=reader.max_positions,
        norm_eps=fields.number(fields.first("rms_norm_eps", "layer_norm_epsilon")),
        norm_layout=_LAYOUTS.get(family, "pre"),
        norm_offset=1.0 if family in _OFFSET_NORMS else 0.0,
        embed_scale=math.sqrt(hidden) if family.startswith("gemma") else fields.number("embedding_multiplier", 1.0),
        residual_scale=fields.number("residual_multiplier", 1.0),
        logit_scale=1.0 / fields.number("logits_scaling", 1.0),
        logit_softcap=fields.optional_number("final_logit_softcapping"),
        bos_id=ids[0] if ids else None,
        eos_ids=fields.ids("eos_token_id"),
        pad_id=next(iter(fields.ids("pad_token_id")), None),
        source_dtype=stored_dtype(fields),
    )


def _renamed(given: Fields, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The count of experts has three names; transformers 5 writes another than the hub's files have."""
    data = dict(given.data)
    spelled = next((n for n in _EXPERTS if given.has(n)), None)
    expected = next((n for n in _EXPERTS if n in defaults), None)
    if spelled and expected:
        data[expected] = data[spelled]
    return data


def stored_dtype(fields: Fields) -> str:
    """What the weights are stored as: a pre-quantized checkpoint's method, else its float type."""
    quantized = fields.child("quantization_config")
    if quantized is not None:
        return quantized.text("quant_method", "quantized")
    name = fields.text(fields.first("dtype", "torch_dtype"), "bfloat16")
    return _DTYPES.get(name, name)


def with_generation(spec_data: Mapping[str, Any], generation: Any, where: object) -> dict[str, Any]:
    """A config with the stop tokens of `generation_config.json`, which names all of them where the config names one."""
    found = Fields(generation, where)
    extra = {k: found.data[k] for k in ("eos_token_id", "pad_token_id") if found.ids(k)}
    return {**spec_data, **extra}
