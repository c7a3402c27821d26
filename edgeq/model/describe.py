"""A ModelSpec in words: the lines that `edgeq inspect` and the wizard show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from edgeq.model.spec import (
    Attention,
    FeedForward,
    GatedDelta,
    LatentAttention,
    Layer,
    Mixer,
    ModelSpec,
    MoE,
    Rope,
)

_GATED = {"silu": "SwiGLU", "gelu": "GeGLU", "gelu_tanh": "GeGLU (tanh)", "relu2": "ReLU² gated"}
_LAYOUTS = {
    "pre": "before each branch",
    "post": "after each branch",
    "sandwich": "before and after each branch",
}


def facts(spec: ModelSpec) -> list[tuple[str, str]]:
    """(label, text) lines about the architecture; an empty label continues the one before."""
    lines = [("Architecture", f"{spec.family}, {spec.n_layers} layers, hidden size {spec.hidden_size:,}")]
    lines += _varied("Attention", spec, lambda layer: describe_mixer(layer.mixer))
    if any(isinstance(x.mixer, Attention) and x.mixer.window for x in spec.layers):
        lines += _varied("Window", spec, lambda layer: _window(layer.mixer))
    lines += _varied("RoPE", spec, lambda layer: _rope(layer.mixer))
    lines += _varied("Feed-forward", spec, lambda layer: describe_ffn(layer.ffn))
    norm = f"RMSNorm {_LAYOUTS[spec.norm_layout]}, epsilon {spec.norm_eps:g}"
    lines.append(("Norm", norm + (", weights stored minus one" if spec.norm_offset else "")))
    tied = "shared with the head" if spec.tied else "with a head of its own"
    lines.append(("Vocabulary", f"{spec.vocab_size:,} tokens, embedding {tied}"))
    scales = _scales(spec)
    if scales:
        lines.append(("Scaling", scales))
    lines.append(("Context", f"up to {spec.max_positions:,} tokens"))
    lines.append(("Stored as", spec.source_dtype))
    return lines


def describe_mixer(mixer: Mixer) -> str:
    """e.g. `grouped-query, 32 heads on 8 KV heads of 128, QK-norm per head`."""
    if isinstance(mixer, Attention):
        return _attention(mixer)
    if isinstance(mixer, LatentAttention):
        queries = f", queries through {mixer.q_lora_rank:,}" if mixer.q_lora_rank else ""
        return (
            f"multi-head latent, {mixer.heads} heads, cache {mixer.kv_lora_rank} + {mixer.qk_rope_dim} wide"
            f" (keys {mixer.qk_nope_dim} + {mixer.qk_rope_dim}, values {mixer.v_dim}){queries}"
        )
    if isinstance(mixer, GatedDelta):
        return (
            f"gated delta, {mixer.key_heads} key heads of {mixer.key_dim}, "
            f"{mixer.value_heads} value heads of {mixer.value_dim}, convolution {mixer.conv_kernel}"
        )
    heads = f", {mixer.heads} heads" if mixer.heads else ""
    return f"Mamba {mixer.version}, inner width {mixer.d_inner:,}, state {mixer.d_state}{heads}"


def describe_ffn(ffn: FeedForward | None) -> str:
    if ffn is None:
        return ""
    if isinstance(ffn, MoE):
        shared = f", and {ffn.shared_intermediate:,} always on" if ffn.shared_intermediate else ""
        return f"{ffn.active} of {ffn.experts} experts, {_GATED[ffn.activation]} {ffn.intermediate:,} wide{shared}"
    bias = ", biases" if ffn.bias else ""
    return f"{_GATED[ffn.activation] if ffn.gated else ffn.activation}, {ffn.intermediate:,} wide{bias}"


def _attention(a: Attention) -> str:
    if a.kv_heads == a.heads:
        shape = f"multi-head, {a.heads} heads of {a.head_dim}"
    elif a.kv_heads == 1:
        shape = f"multi-query, {a.heads} heads on 1 KV head of {a.head_dim}"
    else:
        shape = f"grouped-query, {a.heads} heads on {a.kv_heads} KV heads of {a.head_dim}"
    extras = {
        "QK-norm per head": a.qk_norm == "head",
        "QK-norm over all heads": a.qk_norm == "full",
        "QKV biases": a.qkv_bias,
        f"softcap {a.softcap:g}" if a.softcap else "": a.softcap is not None,
        "sinks": a.sinks,
        "output gate": a.gated,
    }
    return ", ".join([shape, *(text for text, present in extras.items() if present)])


def _window(mixer: Mixer) -> str:
    if not isinstance(mixer, Attention):
        return ""
    return f"the last {mixer.window:,} tokens" if mixer.window else "all tokens"


def _rope(mixer: Mixer) -> str:
    if not isinstance(mixer, (Attention, LatentAttention)):
        return ""
    rope = mixer.rope
    return "none (NoPE)" if rope is None else _describe_rope(rope)


def _describe_rope(rope: Rope) -> str:
    text = f"base {rope.theta:,.0f}, {rope.dim} dimensions"
    if rope.kind == "default":
        return text
    numbers = dict(rope.params)
    factor = numbers.get("factor")
    by = f" ×{factor:g}" if isinstance(factor, float) and factor != 1 else ""
    longer = rope.original_max_positions and rope.kind != "linear"
    trained = f" from {rope.original_max_positions:,} tokens" if longer else ""
    return f"{text}, {rope.kind}{by}{trained}"


def _scales(spec: ModelSpec) -> str:
    parts = {
        f"embedding ×{spec.embed_scale:.4g}": spec.embed_scale != 1,
        f"branches ×{spec.residual_scale:.4g}": spec.residual_scale != 1,
        f"logits ×{spec.logit_scale:.4g}": spec.logit_scale != 1,
        f"logits capped at {spec.logit_softcap:g}" if spec.logit_softcap else "": spec.logit_softcap is not None,
    }
    return ", ".join(text for text, present in parts.items() if present)


def _varied(label: str, spec: ModelSpec, describe: Callable[[Layer], str]) -> Iterator[tuple[str, str]]:
    """One line where all layers agree, else one a variant with the number of its layers."""
    counts = Counter(describe(layer) for layer in spec.layers)
    for text, n in counts.items():
        if text:
            yield label, text if len(counts) == 1 else f"{n} × {text}"
            label = ""


__all__ = ["describe_ffn", "describe_mixer", "facts"]
