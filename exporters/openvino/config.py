"""`config.json` and `generation_config.json`: what openvino-genai and optimum-intel read beside the model."""

from __future__ import annotations

from typing import Any

from edgeq.model.spec import MLP, Attention, ModelSpec, MoE


def config(spec: ModelSpec, context: int) -> dict[str, Any]:
    """The architecture under the names of transformers, as far as it is not in the graph."""
    layer = spec.layers[0]
    assert isinstance(layer.mixer, Attention) and isinstance(layer.ffn, (MLP, MoE))
    return {
        "model_type": spec.family,
        "hidden_size": spec.hidden_size,
        "intermediate_size": layer.ffn.intermediate,
        "num_hidden_layers": spec.n_layers,
        "num_attention_heads": layer.mixer.heads,
        "num_key_value_heads": layer.mixer.kv_heads,
        "head_dim": layer.mixer.head_dim,
        "vocab_size": spec.vocab_size,
        "max_position_embeddings": context,
        "rms_norm_eps": spec.norm_eps,
        "tie_word_embeddings": spec.tied,
        "use_cache": True,
        **(_experts(layer.ffn) if isinstance(layer.ffn, MoE) else {}),
        **_ids(spec),
    }


def generation_config(spec: ModelSpec) -> dict[str, Any]:
    return {"do_sample": False, **_ids(spec)}


def _experts(ffn: MoE) -> dict[str, int]:
    names = dict.fromkeys(("num_experts", "num_local_experts"), ffn.experts)
    return {**names, "num_experts_per_tok": ffn.active, "moe_intermediate_size": ffn.intermediate}


def _ids(spec: ModelSpec) -> dict[str, Any]:
    eos = list(spec.eos_ids)
    found = {"bos_token_id": spec.bos_id, "eos_token_id": eos[0] if len(eos) == 1 else eos, "pad_token_id": spec.pad_id}
    return {name: value for name, value in found.items() if value not in (None, [])}
