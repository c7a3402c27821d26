"""A ModelSpec becomes a Hugging Face `config.json`: the other way of edgeq.model.config.

Written as transformers 4 spells it, which transformers 5 and vLLM read too. Whatever is written is read back and
compared with the spec, so that a model that a configuration can't say is refused instead of written as another.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from edgeq.errors import EdgeqError
from edgeq.model import hf_config_moe
from edgeq.model.config import read_config
from edgeq.model.names import loadable
from edgeq.model.spec import MLP, Attention, ModelSpec, MoE, Rope

CLASSES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
    "olmo2": "Olmo2ForCausalLM",
    "olmo3": "Olmo3ForCausalLM",
    "granite": "GraniteForCausalLM",
    **hf_config_moe.CLASSES,
}
_ACTIVATIONS = {"silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu2": "relu2"}
_ATTENTION_BIAS = {"llama", "granite", "granitemoe", "granitemoeshared", "smollm3", "qwen3", "qwen3_moe", "olmoe"}
_ATTENTION_BIAS |= {"gemma2", "gemma3_text", "olmo2", "olmo3"}
# One window for all layers, without a list of their types.
_UNIFORM = {"mistral", "phi3", "mixtral"}


def config_of(spec: ModelSpec) -> dict[str, Any]:
    """The configuration, without a dtype.

    Raises:
        EdgeqError: a family that edgeq writes no configuration of, or a model that none can describe.
    """
    if spec.family not in CLASSES or not loadable(spec):
        known = ", ".join(CLASSES)
        raise EdgeqError(f"edgeq writes no config.json of {spec.family} models", where=spec.name, hint=f"Of {known}")
    made = {
        "architectures": [CLASSES[spec.family]],
        "model_type": spec.family,
        **_sizes(spec),
        **_positions(spec),
        **_family(spec),
        **hf_config_moe.mixture(spec),
        "bos_token_id": spec.bos_id,
        "eos_token_id": spec.eos_ids[0] if len(spec.eos_ids) == 1 else list(spec.eos_ids) or None,
        "pad_token_id": spec.pad_id,
        "use_cache": True,
    }
    wrong = different(spec, read_config(made, name=spec.name))
    if wrong is not None:
        raise EdgeqError(f"a config.json of {spec.family} can't say this model's {wrong}", where=spec.name)
    return made


def different(spec: ModelSpec, found: ModelSpec) -> str | None:
    """The first thing about the architecture that two specs disagree on; None: nothing.

    What norms' weights count from is no part of it: see `norm_shift`.
    """
    other = replace(found, name=spec.name, origin=spec.origin, location=spec.location, source=spec.source)
    other = replace(other, norm_offset=spec.norm_offset)
    other = replace(other, source_dtype=spec.source_dtype, estimated=spec.estimated)
    for name in ModelSpec.__dataclass_fields__:
        a, b = getattr(spec, name), getattr(other, name)
        close = isinstance(a, float) and isinstance(b, float) and abs(a - b) <= 1e-6 * abs(a)
        if a != b and not close and not (name == "layers" and _same_layers(spec, other)):
            return name
    return None


def norm_shift(spec: ModelSpec, found: ModelSpec) -> float:
    """What a norm's weight in files of `found` is less than one of `spec`: a GGUF file's Gemma has the one added."""
    return found.norm_offset - spec.norm_offset


def _same_layers(spec: ModelSpec, other: ModelSpec) -> bool:
    """Alike but for the last bits of a scale, and for numbers of a rotary embedding that follow from others."""
    if len(spec.layers) != len(other.layers):
        return False
    for a, b in zip(spec.layers, other.layers, strict=True):
        if not isinstance(a.mixer, Attention) or not isinstance(b.mixer, Attention) or a.ffn != b.ffn:
            return False
        if abs(a.mixer.scale - b.mixer.scale) > 1e-6 * abs(a.mixer.scale) or not _same_rope(a.mixer.rope, b.mixer.rope):
            return False
        if replace(a.mixer, scale=b.mixer.scale, rope=b.mixer.rope) != b.mixer:
            return False
    return True


def _same_rope(a: Rope | None, b: Rope | None) -> bool:
    """The numbers that count are the same; some are only stated by one of two files."""
    if a is None or b is None:
        return a is b
    if replace(a, params=(), original_max_positions=None) != replace(b, params=(), original_max_positions=None):
        return False
    if a.original_max_positions != b.original_max_positions and a.kind != "linear":
        return False
    first, second = dict(a.params), dict(b.params)
    shared = first.keys() & second.keys()
    if a.kind == "longrope":
        shared = shared - {"factor"}  # which only says what the attention factor is, where that is not stated
    return all(_near(first[n], second[n]) for n in shared)


def _near(a: float | tuple[float, ...], b: float | tuple[float, ...]) -> bool:
    """Alike but for rounding to single precision."""
    ours, theirs = (v if isinstance(v, tuple) else (v,) for v in (a, b))
    return len(ours) == len(theirs) and all(math.isclose(x, y, rel_tol=1e-6) for x, y in zip(ours, theirs, strict=True))


def _sizes(spec: ModelSpec) -> dict[str, Any]:
    mixer, ffn = _first(spec)
    return {
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.hidden_size,
        "intermediate_size": ffn.intermediate,
        "num_hidden_layers": spec.n_layers,
        "num_attention_heads": mixer.heads,
        "num_key_value_heads": mixer.kv_heads,
        "head_dim": mixer.head_dim,
        "hidden_act": _ACTIVATIONS[ffn.activation],
        "rms_norm_eps": spec.norm_eps,
        "tie_word_embeddings": spec.tied,
        "attention_dropout": 0.0,
    }


def _first(spec: ModelSpec) -> tuple[Attention, MLP | MoE]:
    mixer, ffn = spec.layers[0].mixer, spec.layers[0].ffn
    assert isinstance(mixer, Attention) and isinstance(ffn, (MLP, MoE))
    return mixer, ffn


def _positions(spec: ModelSpec) -> dict[str, Any]:
    """Context, windows and rotary embedding."""
    mixers = [layer.mixer for layer in spec.layers if isinstance(layer.mixer, Attention)]
    windows = {m.window for m in mixers} - {None}
    made: dict[str, Any] = {"max_position_embeddings": spec.max_positions}
    made["sliding_window"] = min((w for w in windows if w is not None), default=None)
    if spec.family not in _UNIFORM and (windows or spec.family.startswith("gemma")):
        made["layer_types"] = ["full_attention" if m.window is None else "sliding_attention" for m in mixers]
    if spec.family.startswith("qwen") or spec.family == "smollm3":
        made["use_sliding_window"] = bool(windows)
        made["max_window_layers"] = next((i for i, m in enumerate(mixers) if m.window is not None), spec.n_layers)
    return made | _rotary(spec, mixers)


def _rotary(spec: ModelSpec, mixers: list[Attention]) -> dict[str, Any]:
    full = next((m.rope for m in mixers if m.rope and m.window is None), None)
    local = next((m.rope for m in mixers if m.rope and m.window is not None), None)
    rope = full or local
    if rope is None:
        return {}
    made: dict[str, Any] = {"rope_theta": rope.theta, "rope_scaling": _scaling(spec, rope)}
    if spec.family == "gemma3_text":
        made["rope_local_base_freq"] = local.theta if local is not None else 10_000.0
    if rope.dim != mixers[0].head_dim:
        made["partial_rotary_factor"] = rope.dim / mixers[0].head_dim
    if rope.kind == "longrope":
        made["original_max_position_embeddings"] = rope.original_max_positions
    return made


def _scaling(spec: ModelSpec, rope: Rope) -> dict[str, Any] | None:
    """A scaled kind's numbers, in the words of the configuration."""
    if rope.kind == "default":
        return None
    params: dict[str, Any] = {n: list(v) if isinstance(v, tuple) else v for n, v in rope.params}
    if rope.kind == "longrope":  # Phi-3's class wants these three and no more; the rest follows from the lengths
        lists = {n: params[n] for n in ("short_factor", "long_factor")}
        if spec.family == "phi3":
            return {"type": "longrope", **lists}
    if "truncate" in params:
        params["truncate"] = bool(params["truncate"])
    made = {"rope_type": rope.kind, **params}
    if rope.kind in ("yarn", "llama3", "longrope"):
        made["original_max_position_embeddings"] = rope.original_max_positions
    return made


def _family(spec: ModelSpec) -> dict[str, Any]:
    """What only some families' configurations say."""
    mixer, ffn = _first(spec)
    made: dict[str, Any] = {}
    if spec.family in _ATTENTION_BIAS:
        made["attention_bias"] = mixer.qkv_bias
    if spec.family == "qwen2_moe":
        made["qkv_bias"] = mixer.qkv_bias
    if spec.family in ("llama", "granite", "smollm3"):
        made["mlp_bias"] = isinstance(ffn, MLP) and ffn.bias
    if spec.family.startswith("gemma"):
        made["hidden_activation"] = _ACTIVATIONS[ffn.activation]
        squared = mixer.scale**-2
        made["query_pre_attn_scalar"] = round(squared) if abs(squared - round(squared)) < 1e-6 else squared
        made["attn_logit_softcapping"] = mixer.softcap
        made["final_logit_softcapping"] = spec.logit_softcap
    if spec.family.startswith("granite"):
        made["attention_multiplier"] = mixer.scale
        made["embedding_multiplier"] = spec.embed_scale
        made["residual_multiplier"] = spec.residual_scale
        made["logits_scaling"] = 1.0 / spec.logit_scale
    if spec.family == "smollm3":
        mixers = [layer.mixer for layer in spec.layers]
        made["no_rope_layers"] = [int(isinstance(m, Attention) and m.rope is not None) for m in mixers]
        made["no_rope_layer_interval"] = next((i + 1 for i, on in enumerate(made["no_rope_layers"]) if not on), 4)
    return made
