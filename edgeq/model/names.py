"""Where a canonical tensor (edgeq.model.tensors) lies in a Hugging Face checkpoint and in a GGUF file.

Hugging Face norm names mean different things: `post_attention_layernorm` stands before the MLP in Llama, after the
attention in Gemma and OLMo. GGUF names: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and the tables of
gguf-py.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from edgeq.errors import EdgeqError
from edgeq.model.spec import MLP, Attention, ModelSpec, MoE
from edgeq.model.tensors import TensorSpec, tensors


@dataclass(frozen=True, slots=True)
class HfSlice:
    """A tensor of a file, or rows [row_start, row_stop) of one that holds several (Phi-3's `qkv_proj`)."""

    name: str
    row_start: int | None = None
    row_stop: int | None = None


# Families whose GGUF has the rows of `q` and `k` reordered for interleaved RoPE: llama.cpp's converter turns each
# head's (2, head_dim/2) rows into (head_dim/2, 2). A reader has to undo it.
_GGUF_PERMUTED = {"llama", "mistral", "mixtral", "smollm3", "granite", "granitemoe", "granitemoeshared"}

_HF_TOP = {"embed": "embed_tokens.weight", "final_norm": "norm.weight"}
_HF_NORMS = {
    "pre": {"attn_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"},
    "post": {"post_attn_norm": "post_attention_layernorm", "post_mlp_norm": "post_feedforward_layernorm"},
    "sandwich": {
        "attn_norm": "input_layernorm",
        "post_attn_norm": "post_attention_layernorm",
        "mlp_norm": "pre_feedforward_layernorm",
        "post_mlp_norm": "post_feedforward_layernorm",
    },
}
_HF_ATTENTION = {
    **{n: f"self_attn.{n}_proj.weight" for n in "qkvo"},
    **{f"{n}_bias": f"self_attn.{n}_proj.bias" for n in "qkvo"},
    "q_norm": "self_attn.q_norm.weight",
    "k_norm": "self_attn.k_norm.weight",
    "sinks": "self_attn.sinks",
    "q_a": "self_attn.q_a_proj.weight",
    "q_a_bias": "self_attn.q_a_proj.bias",
    "q_a_norm": "self_attn.q_a_layernorm.weight",
    "q_b": "self_attn.q_b_proj.weight",
    "kv_a": "self_attn.kv_a_proj_with_mqa.weight",
    "kv_a_bias": "self_attn.kv_a_proj_with_mqa.bias",
    "kv_a_norm": "self_attn.kv_a_layernorm.weight",
    "kv_b": "self_attn.kv_b_proj.weight",
}
_HF_MLP = {
    **{n: f"mlp.{n}_proj.weight" for n in ("gate", "up", "down")},
    **{f"{n}_bias": f"mlp.{n}_proj.bias" for n in ("gate", "up", "down")},
}
_HF_SHARED = {
    **{f"shared_{n}": f"mlp.shared_expert.{n}_proj.weight" for n in ("gate", "up", "down")},
    "shared_router": "mlp.shared_expert_gate.weight",
}
# family -> the layer's router; the mixtures whose weights are loaded.
_HF_ROUTER = {
    "mixtral": "block_sparse_moe.gate",
    "qwen2_moe": "mlp.gate",
    "qwen3_moe": "mlp.gate",
    "olmoe": "mlp.gate",
    "gpt_oss": "mlp.router",
    "granitemoe": "block_sparse_moe.router.layer",
    "granitemoeshared": "block_sparse_moe.router.layer",
}
# -> the fused matrix of Granite's shared experts, and which half of its rows; None: all of them.
_GRANITE_SHARED: dict[str, tuple[str, int | None]] = {
    "shared_gate": ("input_linear", 0),
    "shared_up": ("input_linear", 1),
    "shared_down": ("output_linear", None),
}
_GGUF_TOP = {
    "embed": "token_embd.weight",
    "final_norm": "output_norm.weight",
    "head": "output.weight",
    "head_bias": "output.bias",
}
_GGUF_LAYER = {
    "attn_norm": "attn_norm.weight",
    "mlp_norm": "ffn_norm.weight",
    "post_attn_norm": "post_attention_norm.weight",
    "post_mlp_norm": "post_ffw_norm.weight",
    **{n: f"attn_{n}.weight" for n in "qkv"},
    **{f"{n}_bias": f"attn_{n}.bias" for n in "qkv"},
    "o": "attn_output.weight",
    "o_bias": "attn_output.bias",
    "q_norm": "attn_q_norm.weight",
    "k_norm": "attn_k_norm.weight",
    "sinks": "attn_sinks.weight",
    "q_a": "attn_q_a.weight",
    "q_a_norm": "attn_q_a_norm.weight",
    "q_b": "attn_q_b.weight",
    "kv_a": "attn_kv_a_mqa.weight",
    "kv_a_norm": "attn_kv_a_norm.weight",
    "kv_b": "attn_kv_b.weight",
    **{n: f"ffn_{n}.weight" for n in ("gate", "up", "down")},
    **{f"{n}_bias": f"ffn_{n}.bias" for n in ("gate", "up", "down")},
    "router": "ffn_gate_inp.weight",
    "router_bias": "ffn_gate_inp.bias",
    **{f"experts_{n}": f"ffn_{n}_exps.weight" for n in ("gate", "up", "down")},
    **{f"experts_{n}_bias": f"ffn_{n}_exps.bias" for n in ("gate", "up", "down")},
    **{f"shared_{n}": f"ffn_{n}_shexp.weight" for n in ("gate", "up", "down")},
    "shared_router": "ffn_gate_inp_shexp.weight",
}


def loadable(spec: ModelSpec) -> bool:
    """The model's weights can be read, and the decoder run on them."""
    return spec.dense or (spec.family in _HF_ROUTER and spec.softmax)


def hf_names(spec: ModelSpec, stored: Collection[str] | None = None) -> dict[str, HfSlice]:
    """Canonical name -> where it lies in the model's safetensors files; for experts see `edgeq.model.experts`.

    Args:
        stored: the names in the files, to find the prefix (`model.`, or a multimodal wrapper's); without it `model.`.

    Raises:
        EdgeqError: the model's weights can't be loaded yet.
    """
    if not loadable(spec):
        raise EdgeqError(f"loading {spec.family} weights is not possible yet", where=spec.name, hint="Plan it instead")
    prefix = hf_prefix(stored) if stored is not None else "model."
    mixtral = spec.family == "mixtral" and stored is not None and f"{prefix}layers.0.mlp.gate.weight" in stored
    found = {t.name: hf_slice(spec, t, prefix) for t in tensors(spec) if not t.expert}
    if mixtral:  # as transformers 5 has it in memory, and on disk where told to leave it so
        return {n: replace(s, name=s.name.replace("block_sparse_moe.", "mlp.")) for n, s in found.items()}
    return found


def hf_prefix(stored: Collection[str]) -> str:
    """What stands before `embed_tokens.weight` in these files."""
    found = next((n for n in stored if n.endswith("embed_tokens.weight")), "model.embed_tokens.weight")
    return found.removesuffix("embed_tokens.weight")


def hf_slice(spec: ModelSpec, tensor: TensorSpec, prefix: str) -> HfSlice:
    """Where one tensor of an attention or MLP lies. `prefix` is what stands before `layers.`."""
    if tensor.name in _HF_TOP:
        return HfSlice(prefix + _HF_TOP[tensor.name])
    if tensor.name in ("head", "head_bias"):
        outer = "language_model." if prefix == "language_model.model." else ""
        return HfSlice(f"{outer}lm_head.{'weight' if tensor.name == 'head' else 'bias'}")
    at, part = f"{prefix}layers.{tensor.layer}.", tensor.name.split(".", 2)[2]
    if spec.family == "phi3":
        fused = _phi3(spec, tensor, part)
        if fused is not None:
            return HfSlice(at + fused.name, fused.row_start, fused.row_stop)
    norms = _HF_NORMS[spec.norm_layout]
    if part in norms:
        return HfSlice(f"{at}{norms[part]}.weight")
    if part in ("router", "router_bias"):
        return HfSlice(f"{at}{_HF_ROUTER[spec.family]}.{'bias' if part.endswith('bias') else 'weight'}")
    if part in _GRANITE_SHARED and spec.family in _HF_ROUTER and spec.family.startswith("granitemoe"):
        ffn = spec.layers[tensor.layer or 0].ffn
        assert isinstance(ffn, MoE)
        name, first = _GRANITE_SHARED[part]
        width = ffn.shared_intermediate
        rows = (None, None) if first is None else (first * width, (first + 1) * width)
        return HfSlice(f"{at}shared_mlp.{name}.weight", *rows)
    return HfSlice(at + {**_HF_ATTENTION, **_HF_MLP, **_HF_SHARED}[part])


def gguf_names(spec: ModelSpec) -> dict[str, str]:
    """Canonical name -> the tensor of a GGUF file that holds it; see `gguf_slices` where one tensor holds several."""
    return {name: found.name for name, found in gguf_slices(spec).items()}


def gguf_slices(spec: ModelSpec) -> dict[str, HfSlice]:
    """Canonical name -> where it lies in a GGUF file (Phi-3 keeps fused `attn_qkv` and `ffn_up` there too).

    Raises:
        EdgeqError: the model has layers whose GGUF names are not known (state-space ones).
    """
    return {t.name: _gguf_slice(spec, t) for t in tensors(spec)}


def gguf_permuted(spec: ModelSpec) -> bool:
    """The rows of `q` and `k` (weights and biases) are reordered in this family's GGUF files."""
    return spec.family in _GGUF_PERMUTED


def _gguf_slice(spec: ModelSpec, tensor: TensorSpec) -> HfSlice:
    if tensor.name in _GGUF_TOP:
        return HfSlice(_GGUF_TOP[tensor.name])
    at, part = f"blk.{tensor.layer}.", tensor.name.split(".", 2)[2]
    fused = _phi3(spec, tensor, part) if spec.family == "phi3" else None
    if fused is not None:
        name = "attn_qkv.weight" if "qkv" in fused.name else "ffn_up.weight"
        return HfSlice(at + name, fused.row_start, fused.row_stop)
    if spec.family == "gpt_oss" and part == "mlp_norm":
        return HfSlice(f"{at}post_attention_norm.weight")
    if part not in _GGUF_LAYER:
        raise EdgeqError(f"no GGUF name is known for {tensor.name}", where=spec.name)
    return HfSlice(at + _GGUF_LAYER[part])


def _phi3(spec: ModelSpec, tensor: TensorSpec, part: str) -> HfSlice | None:
    """Phi-3 stores q, k, v as one matrix, gate and up as another, in that order of rows."""
    layer = spec.layers[tensor.layer or 0]
    mixer, ffn = layer.mixer, layer.ffn
    if not isinstance(mixer, Attention) or not isinstance(ffn, MLP):
        return None
    q, kv, wide = mixer.heads * mixer.head_dim, mixer.kv_heads * mixer.head_dim, ffn.intermediate
    qkv, gate_up = "self_attn.qkv_proj.weight", "mlp.gate_up_proj.weight"
    return {
        "q": HfSlice(qkv, 0, q),
        "k": HfSlice(qkv, q, q + kv),
        "v": HfSlice(qkv, q + kv, q + 2 * kv),
        "gate": HfSlice(gate_up, 0, wide),
        "up": HfSlice(gate_up, wide, 2 * wide),
    }.get(part)
