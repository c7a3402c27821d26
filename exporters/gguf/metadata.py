"""A ModelSpec as the keys that llama.cpp reads: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.

The reader of the same keys is edgeq/model/gguf_spec.py; a test reads back what is written here.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgeq.decoder.rope import frequencies
from edgeq.errors import EdgeqError
from edgeq.model.spec import MLP, Attention, ModelSpec, Rope

Value = str | int | float | bool | list[int]
_ARCHS = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "phi3": "phi3",
    "smollm3": "smollm3",
    "olmo2": "olmo2",
    "granite": "granite",
}
_FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K": 12}
_FILE_TYPES |= {"Q4_K": 15, "Q5_K": 17, "Q6_K": 18, "IQ4_NL": 25, "IQ4_XS": 30}


def architecture(spec: ModelSpec) -> str:
    """llama.cpp's name of the architecture.

    Raises:
        EdgeqError: it has none that edgeq writes.
    """
    if spec.family not in _ARCHS:
        raise EdgeqError(
            f"edgeq writes no GGUF of {spec.family} models", where=spec.name, hint=f"It does of {', '.join(_ARCHS)}"
        )
    return _ARCHS[spec.family]


def metadata(spec: ModelSpec, main_type: str) -> dict[str, Value]:
    """Key -> value, the tokenizer's left out.

    Args:
        main_type: the block type that most weights have.

    Raises:
        EdgeqError: an architecture, or a mixture of layers, that the file can't say.
    """
    arch = architecture(spec)
    mixers = [x.mixer for x in spec.layers if isinstance(x.mixer, Attention)]
    ffns = [x.ffn for x in spec.layers if isinstance(x.ffn, MLP)]
    if len(mixers) < spec.n_layers or len(ffns) < spec.n_layers:
        raise EdgeqError("only dense models are exported to gguf", where=spec.name)
    first = mixers[0]
    if len({(m.heads, m.kv_heads, m.head_dim) for m in mixers}) > 1 or len({f.intermediate for f in ffns}) > 1:
        raise EdgeqError("layers of different widths are not exported to gguf", where=spec.name)
    own: dict[str, Value] = {
        "block_count": spec.n_layers,
        "context_length": spec.max_positions,
        "embedding_length": spec.hidden_size,
        "feed_forward_length": ffns[0].intermediate,
        "attention.head_count": first.heads,
        "attention.head_count_kv": first.kv_heads,
        "attention.key_length": first.head_dim,
        "attention.value_length": first.head_dim,
        "attention.layer_norm_rms_epsilon": spec.norm_eps,
        "vocab_size": spec.vocab_size,
        **_rope(spec, [m.rope for m in mixers if m.rope is not None]),
    }
    windows = {m.window for m in mixers if m.window is not None}
    if windows:
        own["attention.sliding_window"] = windows.pop()
    if first.softcap is not None:
        own["attn_logit_softcapping"] = first.softcap
    if spec.logit_softcap is not None:
        own["final_logit_softcapping"] = spec.logit_softcap
    if spec.family == "granite":
        own |= {
            "attention.scale": first.scale,
            "embedding_scale": spec.embed_scale,
            "residual_scale": spec.residual_scale,
            "logit_scale": 1.0 / spec.logit_scale,
        }
    general: dict[str, Value] = {
        "general.type": "model",
        "general.name": spec.name,
        "general.file_type": _FILE_TYPES.get(main_type, 0),
        "general.quantization_version": 2,
    }
    return general | {f"{arch}.{key}": value for key, value in own.items()}


def rope_factors(spec: ModelSpec) -> npt.NDArray[np.float32] | None:
    """The tensor `rope_freqs.weight` of a model with Llama 3's scaling: float32 (dim / 2), what divides a frequency."""
    rope = _full_rope(spec)
    if rope is None or rope.kind not in ("llama3", "longrope") or not _one_factor(rope):
        return None
    plain = frequencies(Rope(rope.theta, rope.dim), spec.max_positions)
    scaled = frequencies(rope, spec.max_positions)
    factors: npt.NDArray[np.float32] = (plain.inverse / scaled.inverse).astype(np.float32)
    return factors


def _one_factor(rope: Rope) -> bool:
    """Not LongRoPE's two lists, for short and long sequences (a GGUF source says Llama 3's as two equal ones)."""
    if rope.kind != "longrope":
        return True
    return rope.factors("short_factor") == rope.factors("long_factor") and rope.param("attention_factor", 1.0) == 1.0


def _full_rope(spec: ModelSpec) -> Rope | None:
    """The rotary embedding of the layers that see everything."""
    mixers = [x.mixer for x in spec.layers if isinstance(x.mixer, Attention) and x.mixer.rope is not None]
    full = [m.rope for m in mixers if m.window is None] or [m.rope for m in mixers]
    return full[0] if full else None


def _rope(spec: ModelSpec, ropes: list[Rope]) -> dict[str, Value]:
    main = _full_rope(spec)
    if main is None:
        return {}
    found: dict[str, Value] = {"rope.freq_base": main.theta, "rope.dimension_count": main.dim}
    if main.kind == "linear":
        found |= {"rope.scaling.type": "linear", "rope.scaling.factor": main.param("factor", 1.0)}
    elif main.kind != "default" and not (main.kind in ("llama3", "longrope") and _one_factor(main)):
        raise EdgeqError(f"rotary embeddings of the kind {main.kind} are not exported to gguf", where=spec.name)
    others = {r for r in ropes if r != main}
    if others and spec.family != "gemma3_text":
        raise EdgeqError("layers with different rotary embeddings are not exported to gguf", where=spec.name)
    return found
