"""What a Hugging Face `config.json` says of a mixture's feed-forwards: the other way of edgeq.model.blocks_moe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgeq.model.spec import MLP, Layer, ModelSpec, MoE

CLASSES = {
    "mixtral": "MixtralForCausalLM",
    "qwen2_moe": "Qwen2MoeForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "olmoe": "OlmoeForCausalLM",
    "gpt_oss": "GptOssForCausalLM",
    "granitemoe": "GraniteMoeForCausalLM",
    "granitemoeshared": "GraniteMoeSharedForCausalLM",
}


def mixture(spec: ModelSpec) -> dict[str, Any]:
    """The fields of the family; none for a dense one."""
    found = next((x.ffn for x in spec.layers if isinstance(x.ffn, MoE)), None)
    if found is None:
        return {}
    return {"num_experts_per_tok": found.active, **_FIELDS[spec.family](found, spec.layers)}


def _mixtral(ffn: MoE, layers: tuple[Layer, ...]) -> dict[str, Any]:
    return {"num_local_experts": ffn.experts, "intermediate_size": ffn.intermediate}


def _gpt_oss(ffn: MoE, layers: tuple[Layer, ...]) -> dict[str, Any]:
    return {**_mixtral(ffn, layers), "swiglu_limit": ffn.limit, "attention_bias": True}


def _granite(ffn: MoE, layers: tuple[Layer, ...]) -> dict[str, Any]:
    return {**_mixtral(ffn, layers), "shared_intermediate_size": ffn.shared_intermediate}


def _olmoe(ffn: MoE, layers: tuple[Layer, ...]) -> dict[str, Any]:
    top = ffn.routing == "top"
    return {"num_experts": ffn.experts, "intermediate_size": ffn.intermediate, "norm_topk_prob": top, "clip_qkv": None}


def _qwen3(ffn: MoE, layers: tuple[Layer, ...]) -> dict[str, Any]:
    dense = [i for i, x in enumerate(layers) if isinstance(x.ffn, MLP)]
    # Without dense layers nothing has this width, but the field has to be there.
    width = next((x.ffn.intermediate for x in layers if isinstance(x.ffn, MLP)), ffn.active * ffn.intermediate)
    return {
        "num_experts": ffn.experts,
        "moe_intermediate_size": ffn.intermediate,
        "intermediate_size": width,
        "norm_topk_prob": ffn.routing == "top",
        "decoder_sparse_step": 1,
        "mlp_only_layers": dense,
    }


def _qwen2(ffn: MoE, layers: tuple[Layer, ...]) -> dict[str, Any]:
    return {**_qwen3(ffn, layers), "shared_expert_intermediate_size": ffn.shared_intermediate}


_FIELDS: dict[str, Callable[[MoE, tuple[Layer, ...]], dict[str, Any]]] = {
    "mixtral": _mixtral,
    "qwen2_moe": _qwen2,
    "qwen3_moe": _qwen3,
    "olmoe": _olmoe,
    "gpt_oss": _gpt_oss,
    "granitemoe": _granite,
    "granitemoeshared": _granite,
}
