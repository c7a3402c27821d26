"""Activations, logits and what a runtime takes for itself."""

from __future__ import annotations

from edgeq.estimate.formats import runtime_of
from edgeq.estimate.runtime import runtime_overhead
from edgeq.model.spec import MLP, Attention, GatedDelta, LatentAttention, Mamba, ModelSpec, MoE
from edgeq.scheme import Scheme

MB = 1_000_000
CHUNK = 512  # tokens a prompt is fed in: llama.cpp's n_ubatch, and about what other runtimes are fed here

# A process with the runtime loaded and no model, bytes. Assumptions, rounded: an interpreter with the libraries, and
# for CUDA the context with its kernels. What was measured comes from `edgeq.estimate.runtime` instead.
BASE = {
    "onnxruntime/cpu": 90 * MB,
    "onnxruntime/cuda": 600 * MB,
    "openvino/cpu": 180 * MB,
    "openvino/gpu": 400 * MB,
    "openvino/npu": 400 * MB,
    "llamacpp/cpu": 50 * MB,
    "llamacpp/metal": 150 * MB,
    "llamacpp/cuda": 400 * MB,
    "llamacpp/rocm": 400 * MB,
    "llamacpp/vulkan": 250 * MB,
    "torch/cpu": 350 * MB,
    "torch/cuda": 800 * MB,
}
_UNKNOWN = 200 * MB
_SAME_LIBRARY = {"onnxruntime/android"}  # copies weights for its kernels as it does on a PC, where it was measured


def activation_bytes(spec: ModelSpec, target: str | None, context: int, batch: int = 1) -> int:
    """Bytes of activations and logits at the widest point of a prefill chunk of T = min(512, context) tokens, float32.

    - feed-forward: T * (hidden + 2 * width), the residual, the gate and the up projection alive together;
    - attention: T * (hidden + q + k + v + output); fused kernels keep no T x context score matrix;
    - logits: llama.cpp reserves them for the whole chunk, T * (vocab + hidden): 258.5 MiB for Llama-3-8B and
      70.5 MiB for Llama-2-7B, as its log prints; the others need the last position's only.
    """
    tokens = min(CHUNK, context)
    widest = max((_layer_width(x.mixer, x.ffn) for x in spec.layers), default=0)
    if runtime_of(target) == "llamacpp":
        return 4 * tokens * (spec.hidden_size + max(widest, spec.vocab_size))
    return 4 * (tokens * (spec.hidden_size + widest) + batch * spec.vocab_size)


def _layer_width(mixer: object, ffn: object) -> int:
    return max(_mixer_width(mixer), _ffn_width(ffn))


def _mixer_width(m: object) -> int:
    if isinstance(m, Attention):
        return (2 * m.heads + 2 * m.kv_heads) * m.head_dim
    if isinstance(m, LatentAttention):
        return m.heads * (2 * (m.qk_nope_dim + m.qk_rope_dim) + 2 * m.v_dim)
    if isinstance(m, GatedDelta):
        return 2 * m.key_heads * m.key_dim + 3 * m.value_heads * m.value_dim
    return 3 * m.d_inner if isinstance(m, Mamba) else 0


def _ffn_width(f: object) -> int:
    if isinstance(f, MLP):
        return (2 if f.gated else 1) * f.intermediate
    if isinstance(f, MoE):
        return 2 * (f.active * f.intermediate + f.shared_intermediate)
    return 0


def overhead_bytes(
    spec: ModelSpec, scheme: Scheme, target: str, context: int, kv_dtype: str = "f32"
) -> tuple[int, str]:
    """Bytes the runtime takes beside weights, cache and activations, and where the figure comes from."""
    as_on = "onnxruntime/cpu" if target in _SAME_LIBRARY else target
    measured = runtime_overhead(spec, scheme, as_on, context, kv_dtype)
    if measured is not None:
        return max(0, measured), "as on a PC" if target in _SAME_LIBRARY else "measured"
    return BASE.get(target, _UNKNOWN), "assumed"
