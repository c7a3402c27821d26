"""A ModelSpec as the keys that llama.cpp reads: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.

The reader of the same keys is edgeq/model/gguf_spec.py; a test reads back what is written here.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgeq.decoder.rope import frequencies
from edgeq.errors import EdgeqError
from edgeq.exporters.gguf.expressible import check_expressible, graph
from edgeq.model.spec import MLP, Attention, ModelSpec, MoE, Rope

Value = str | int | float | bool | list[int]
_FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K": 12}
_FILE_TYPES |= {"Q4_K": 15, "Q5_K": 17, "Q6_K": 18, "IQ4_NL": 25, "IQ4_XS": 30, "BF16": 32, "TQ1_0": 36}
_FILE_TYPES |= {"TQ2_0": 37}


# The only architectures for which llama.cpp reads factors of the frequencies: one list, or a short and a long one.
_FACTORS = {"llama", "mistral", "granite"}
_SHORT_LONG = {"phi3"}
# llama.cpp rounds the bounds of YaRN's ramp to whole dimensions, which gpt-oss does not; its published files live with
# that, and so do these.
_YARN = {"gpt_oss"}


def metadata(spec: ModelSpec, main_type: str, context: int) -> dict[str, Value]:
    """Key -> value, the tokenizer's left out.

    Args:
        context: longest sequence the file is for.
        main_type: the block type that most weights have.

    Raises:
        EdgeqError: an architecture, or something about the model, that the file can't say.
    """
    check_expressible(spec, context)
    first, ffn = spec.layers[0].mixer, spec.layers[0].ffn
    assert isinstance(first, Attention) and isinstance(ffn, (MLP, MoE))
    own: dict[str, Value] = {
        "block_count": spec.n_layers,
        "context_length": context,
        "embedding_length": spec.hidden_size,
        "feed_forward_length": ffn.intermediate,
        "attention.head_count": first.heads,
        "attention.head_count_kv": first.kv_heads,
        "attention.key_length": first.head_dim,
        "attention.value_length": first.head_dim,
        "attention.layer_norm_rms_epsilon": spec.norm_eps,
        "vocab_size": spec.vocab_size,
        **_rope(spec),
        **_own(spec, first),
        **(_experts(ffn) if isinstance(ffn, MoE) else {}),
    }
    general: dict[str, Value] = {
        "general.type": "model",
        "general.name": spec.name,
        "general.file_type": _FILE_TYPES.get(main_type, 0),
        "general.quantization_version": 2,
    }
    return general | {f"{graph(spec).name}.{key}": value for key, value in own.items()}


def _experts(ffn: MoE) -> dict[str, Value]:
    found: dict[str, Value] = {"expert_count": ffn.experts, "expert_used_count": ffn.active}
    found["expert_feed_forward_length"] = ffn.intermediate
    if ffn.shared_intermediate:
        found["expert_shared_feed_forward_length"] = ffn.shared_intermediate
    return found


def _own(spec: ModelSpec, first: Attention) -> dict[str, Value]:
    """What only some architectures have."""
    found: dict[str, Value] = {}
    windows = {m.window for m in _attentions(spec) if m.window is not None}
    if graph(spec).windows and windows:
        if len(windows) > 1:
            raise EdgeqError("layers with different windows are not exported to gguf", where=spec.name)
        found["attention.sliding_window"] = windows.pop()
    if first.softcap is not None:
        found["attn_logit_softcapping"] = first.softcap
    if spec.logit_softcap is not None:
        found["final_logit_softcapping"] = spec.logit_softcap
    if graph(spec).scaled:
        found |= {
            "attention.scale": first.scale,
            "embedding_scale": spec.embed_scale,
            "residual_scale": spec.residual_scale,
            "logit_scale": 1.0 / spec.logit_scale,
        }
    return found


def rope_factors(spec: ModelSpec) -> dict[str, npt.NDArray[np.float32]]:
    """Tensors of float32 (dim / 2) that divide the frequencies: `rope_freqs.weight` with Llama 3's scaling, LongRoPE's
    `rope_factors_short.weight` and `rope_factors_long.weight`."""
    rope = _full_rope(spec)
    if rope is None or rope.kind not in ("llama3", "longrope"):
        return {}
    if rope.kind == "longrope" and spec.family in _SHORT_LONG:
        named = {"short_factor": "rope_factors_short.weight", "long_factor": "rope_factors_long.weight"}
        return {name: np.array(rope.factors(key), np.float32) for key, name in named.items()}
    plain = frequencies(Rope(rope.theta, rope.dim), spec.max_positions)
    scaled = frequencies(rope, spec.max_positions)
    return {"rope_freqs.weight": (plain.inverse / scaled.inverse).astype(np.float32)}


def _attentions(spec: ModelSpec) -> list[Attention]:
    return [x.mixer for x in spec.layers if isinstance(x.mixer, Attention)]


def _full_rope(spec: ModelSpec) -> Rope | None:
    """The rotary embedding of the layers that see everything."""
    mixers = [m for m in _attentions(spec) if m.rope is not None]
    full = [m.rope for m in mixers if m.window is None] or [m.rope for m in mixers]
    return full[0] if full else None


def _rope(spec: ModelSpec) -> dict[str, Value]:
    main = _full_rope(spec)
    if main is None:
        return {}
    found: dict[str, Value] = {"rope.freq_base": main.theta, "rope.dimension_count": main.dim}
    if main.kind == "linear":
        found |= {"rope.scaling.type": "linear", "rope.scaling.factor": main.param("factor", 1.0)}
    elif main.kind == "longrope" and spec.family in _SHORT_LONG:
        original = main.original_max_positions or spec.max_positions
        factor = frequencies(main, spec.max_positions).attention_factor
        found |= {"rope.scaling.original_context_length": original, "rope.scaling.attn_factor": float(factor)}
    elif main.kind == "yarn" and spec.family in _YARN:
        found |= {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": main.param("factor", 1.0),
            "rope.scaling.original_context_length": main.original_max_positions or spec.max_positions,
            "rope.scaling.yarn_beta_fast": main.param("beta_fast", 32.0),
            "rope.scaling.yarn_beta_slow": main.param("beta_slow", 1.0),
        }
    elif main.kind != "default" and not (spec.family in _FACTORS and _one_factor(main)):
        raise EdgeqError(f"rotary embeddings of the kind {main.kind} are not exported to gguf", where=spec.name)
    local = {m.rope for m in _attentions(spec) if m.rope is not None and m.rope != main}
    if local:
        (theta,) = {r.theta for r in local} if len(local) == 1 else (None,)
        if theta is None or spec.family != "gemma3_text" or local != {Rope(theta, main.dim)}:
            raise EdgeqError("layers with such different rotary embeddings are not exported to gguf", where=spec.name)
        found["rope.freq_base_swa"] = theta
    return found


def deviations(spec: ModelSpec) -> dict[str, str]:
    """What llama.cpp is known to compute a little otherwise than the model does, for the artifact's manifest."""
    rope = _full_rope(spec)
    if rope is None or rope.kind != "yarn" or rope.param("truncate", 1.0):
        return {}
    return {"deviation": "llama.cpp rounds the bounds of YaRN's ramp to whole dimensions: angles differ far back"}


def _one_factor(rope: Rope) -> bool:
    """Llama 3's scaling, which a GGUF source says as LongRoPE's two lists, the same for short and long sequences."""
    if rope.kind != "longrope":
        return rope.kind == "llama3"
    return rope.factors("short_factor") == rope.factors("long_factor") and rope.param("attention_factor", 1.0) == 1.0
