"""How each family's config describes its layers. One small reader a family; the common case is `LayersReader`."""

from __future__ import annotations

import math
from typing import ClassVar, get_args

from edgeq.errors import EdgeqError
from edgeq.model.fields import MAX_LAYERS, Fields
from edgeq.model.rope_config import mscale, read_rope
from edgeq.model.spec import (
    MLP,
    Activation,
    Attention,
    FeedForward,
    GatedDelta,
    LatentAttention,
    Layer,
    Mamba,
    Mixer,
    MoE,
    QkNorm,
    Rope,
)

_ACTIVATIONS: dict[str, Activation] = {
    **{a: a for a in get_args(Activation)},
    "swish": "silu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
}
_QK_NORM: dict[str, QkNorm] = {"qwen3": "head", "qwen3_moe": "head", "gemma3_text": "head", "olmo2": "full"}
_QK_NORM |= {"olmo3": "full", "qwen3_next": "head", "qwen3_5_text": "head", "qwen3_5_moe_text": "head"}
# Families whose projections never have a bias, whatever `attention_bias` says.
_NO_BIAS = {"mistral", "mixtral", "phi3"}


class LayersReader:
    """Attention and a gated MLP in every layer.

    Llama, Mistral, Qwen 2/3, Gemma 2/3, Phi 3, SmolLM 3, OLMo 2/3 and Granite; the others override parts of it.

    Raises:
        EdgeqError: sizes that contradict each other, or a wrong field.
    """

    mlp_bias_families: ClassVar = {"llama", "granite", "smollm3", "deepseek_v2"}

    def __init__(self, fields: Fields) -> None:
        self.f = fields
        self.family = fields.text("model_type")
        self.n_layers = fields.integer("num_hidden_layers", high=MAX_LAYERS)
        self.max_positions = fields.integer("max_position_embeddings", 1 << 20)
        self.types = self.layer_types()
        self.activation = self._activation()
        self.ropes = {t: self.rope(t) for t in sorted(set(self.types) - {"linear_attention"})}

    def layer(self, i: int) -> Layer:
        return Layer(self.mixer(i), self.ffn(i))

    def mixer(self, i: int) -> Mixer:
        return self.attention(i)

    def ffn(self, i: int) -> FeedForward | None:
        return self.mlp()

    def mlp(self, name: str = "intermediate_size") -> MLP:
        bias = self.family in self.mlp_bias_families and self.f.flag("mlp_bias")
        return MLP(self.f.integer(name), self.activation, bias=bias)

    def heads(self) -> tuple[int, int, int]:
        """(heads, kv_heads, head_dim). `head_dim` from the config first: Qwen3 and Gemma do not divide."""
        f = self.f
        heads = f.integer("num_attention_heads")
        kv_heads = f.integer("num_key_value_heads", heads)
        if heads % kv_heads:
            raise f.wrong("num_key_value_heads", f"a divisor of num_attention_heads ({heads})")
        hidden = f.integer("hidden_size")
        if not f.has("head_dim") and hidden % heads:
            raise f.wrong("hidden_size", f"a multiple of num_attention_heads ({heads}), or a head_dim beside it")
        head_dim = f.integer("head_dim", hidden // heads)
        if head_dim < 2 or head_dim % 2:
            raise EdgeqError(f"the head width is {head_dim}, expected an even number", where=f.where)
        return heads, kv_heads, head_dim

    def attention(self, i: int) -> Attention:
        f, family = self.f, self.family
        heads, kv_heads, head_dim = self.heads()
        bias = f.flag("attention_bias") and family not in _NO_BIAS and not family.startswith("qwen2")
        return Attention(
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            scale=self.scale(head_dim),
            rope=self.ropes[self.types[i]] if self.has_rope(i) else None,
            window=self.window(i),
            softcap=f.optional_number("attn_logit_softcapping"),
            qk_norm=_QK_NORM.get(family, "none"),
            qkv_bias=f.flag("qkv_bias", True) if family.startswith("qwen2") else bias,
            o_bias=bias,
            sinks=family == "gpt_oss",
            gated=family.startswith(("qwen3_next", "qwen3_5")),
        )

    def scale(self, head_dim: int) -> float:
        if self.family.startswith("gemma"):
            return 1.0 / math.sqrt(self.f.number("query_pre_attn_scalar"))
        if self.family.startswith("granite"):
            return self.f.number("attention_multiplier")
        return 1.0 / math.sqrt(head_dim)

    def window(self, i: int) -> int | None:
        return self.f.optional_integer("sliding_window", low=1) if self.types[i] == "sliding_attention" else None

    def has_rope(self, i: int) -> bool:
        """SmolLM3 drops the position encoding from every fourth layer (`no_rope_layers`: 1 means RoPE)."""
        if self.family != "smollm3":
            return True
        listed = self.f.integers("no_rope_layers")
        if listed is None:
            return (i + 1) % self.f.integer("no_rope_layer_interval") != 0
        if len(listed) < self.n_layers:
            raise self.f.wrong("no_rope_layers", f"one entry for each of {self.n_layers} layers")
        return listed[i] != 0

    def rope(self, layer_type: str) -> Rope:
        f, head_dim = self.f, self.heads()[2]
        theta = f.number("rope_theta", 10_000.0)
        if self.family == "gemma3_text" and layer_type == "sliding_attention":
            f = Fields(_local_rope(f), f.where)
            theta = f.number("rope_theta")
        elif self.family == "olmo3" and layer_type == "sliding_attention":
            f = Fields({k: v for k, v in f.data.items() if k != "rope_scaling"}, f.where)
        return read_rope(f, head_dim, self.max_positions, theta=theta, layer_type=layer_type)

    def layer_types(self) -> list[str]:
        """`full_attention`, `sliding_attention`, `linear_attention` or `mamba` for every layer."""
        listed = self.f.texts("layer_types")
        if listed is None:
            return [self.default_type(i) for i in range(self.n_layers)]
        if len(listed) != self.n_layers:
            raise self.f.wrong("layer_types", f"one entry for each of {self.n_layers} layers")
        made = [{"attention": "full_attention", "mamba": "linear_attention"}.get(t, t) for t in listed]
        known = {"full_attention", "sliding_attention", "linear_attention"}
        unknown = sorted(set(made) - known)
        if unknown:
            raise EdgeqError(f"unknown layer type {unknown[0][:40]!r}", where=self.f.where)
        return made

    def default_type(self, i: int) -> str:
        f, family = self.f, self.family
        if not f.data.get("sliding_window"):
            return "full_attention"
        sliding = {
            "mistral": True,
            "phi3": True,
            "mixtral": True,
            "gemma2": i % 2 == 0,
            "gpt_oss": i % 2 == 0,
            "olmo3": (i + 1) % 4 != 0,
        }.get(family, False)
        if family == "gemma3_text":
            sliding = (i + 1) % f.integer("sliding_window_pattern") != 0
        elif family.startswith("qwen") or family == "smollm3":
            sliding = f.flag("use_sliding_window") and self._qwen_sliding(i)
        return "sliding_attention" if sliding else "full_attention"

    def _qwen_sliding(self, i: int) -> bool:
        if self.family == "smollm3":
            return not self.has_rope(i)
        first = self.f.integer("max_window_layers", 28, low=0)
        if self.family == "qwen2_moe":
            return i % 2 == 0 and i < first
        return i >= first if self.family in ("qwen2", "qwen3") else True

    def _activation(self) -> Activation:
        name = self.f.first("hidden_activation", "hidden_act")
        value = self.f.text(name, "silu")
        if value not in _ACTIVATIONS:
            raise self.f.wrong(name, f"one of {', '.join(sorted(_ACTIVATIONS))}")
        return _ACTIVATIONS[value]


def _local_rope(f: Fields) -> dict[str, object]:
    """Gemma 3's sliding layers: an unscaled rotary embedding of their own base."""
    nested = f.child("rope_parameters")
    own = nested.child("sliding_attention") if nested else None
    kept = {k: v for k, v in f.data.items() if k not in ("rope_scaling", "rope_parameters", "rope_theta")}
    kept["rope_theta"] = f.number("rope_local_base_freq", 10_000.0)
    return kept | ({"rope_parameters": dict(own.data)} if own else {})


class MixtralReader(LayersReader):
    def ffn(self, i: int) -> FeedForward | None:
        return self.moe("num_local_experts", "intermediate_size")

    def moe(self, count: str, width: str, shared: int = 0, *, shared_gate: bool = False, bias: bool = False) -> MoE:
        experts = self.f.integer(count, high=1 << 16)
        active = self.f.integer("num_experts_per_tok", high=1 << 16)
        if active > experts:
            raise self.f.wrong("num_experts_per_tok", f"at most {count} ({experts})")
        return MoE(
            experts,
            active,
            self.f.integer(width),
            shared,
            shared_gate,
            self.activation,
            router_bias=bias,
            expert_bias=bias,
        )


class GptOssReader(MixtralReader):
    def ffn(self, i: int) -> FeedForward | None:
        return self.moe("num_local_experts", "intermediate_size", bias=True)

    def rope(self, layer_type: str) -> Rope:
        yarn = {"rope_type": "yarn", "factor": 32.0, "truncate": False, "original_max_position_embeddings": 4096}
        return read_rope(self.f, self.heads()[2], self.max_positions, layer_type=layer_type, default=yarn)


class QwenMoeReader(MixtralReader):
    """Qwen2-MoE and Qwen3-MoE: experts in every `decoder_sparse_step`-th layer outside `mlp_only_layers`."""

    def ffn(self, i: int) -> FeedForward | None:
        dense = i in (self.f.integers("mlp_only_layers") or [])
        if dense or (i + 1) % self.f.integer("decoder_sparse_step"):
            return self.mlp()
        if self.family == "qwen3_moe":
            return self.moe("num_experts", "moe_intermediate_size")
        shared = self.f.integer("shared_expert_intermediate_size")
        return self.moe("num_experts", "moe_intermediate_size", shared, shared_gate=True)


class QwenNextReader(QwenMoeReader):
    """Qwen3-Next and Qwen3.5: three gated delta layers, then one of gated softmax attention."""

    def default_type(self, i: int) -> str:
        return "linear_attention" if (i + 1) % self.f.integer("full_attention_interval") else "full_attention"

    def mixer(self, i: int) -> Mixer:
        if self.types[i] != "linear_attention":
            return self.attention(i)
        f = self.f
        key_heads, value_heads = f.integer("linear_num_key_heads"), f.integer("linear_num_value_heads")
        if value_heads % key_heads:
            raise f.wrong("linear_num_value_heads", f"a multiple of linear_num_key_heads ({key_heads})")
        key_dim, value_dim = f.integer("linear_key_head_dim"), f.integer("linear_value_head_dim")
        return GatedDelta(key_heads, value_heads, key_dim, value_dim, f.integer("linear_conv_kernel_dim"))

    def ffn(self, i: int) -> FeedForward | None:
        if self.family == "qwen3_5_text":
            return self.mlp()
        return super().ffn(i)


class DeepseekReader(MixtralReader):
    """DeepSeek-V2/V3: latent attention; dense MLPs first, then routed and shared experts."""

    def mixer(self, i: int) -> Mixer:
        f = self.f
        nope, rope_dim = f.integer("qk_nope_head_dim"), f.integer("qk_rope_head_dim")
        return LatentAttention(
            heads=f.integer("num_attention_heads"),
            kv_lora_rank=f.integer("kv_lora_rank"),
            q_lora_rank=f.optional_integer("q_lora_rank") or None,
            qk_nope_dim=nope,
            qk_rope_dim=rope_dim,
            v_dim=f.integer("v_head_dim"),
            scale=self._softmax_scale(nope + rope_dim),
            rope=self.ropes[self.types[i]],
            bias=f.flag("attention_bias"),
        )

    def rope(self, layer_type: str) -> Rope:
        width = self.f.integer("qk_rope_head_dim")
        return read_rope(self.f, width, self.max_positions, layer_type=layer_type)

    def _softmax_scale(self, width: int) -> float:
        """1/sqrt(width), times YaRN's temperature squared when `mscale_all_dim` is set (DeepSeek-V2, sec. 3.1.4)."""
        rope = next(iter(self.ropes.values()))
        all_dims = rope.param("mscale_all_dim", 0.0)
        scale = 1.0 / math.sqrt(width)
        return scale * mscale(rope.param("factor", 1.0), all_dims) ** 2 if all_dims else scale

    def ffn(self, i: int) -> FeedForward | None:
        if i < self.f.integer("first_k_dense_replace", low=0):
            return self.mlp()
        shared = self.f.integer("n_shared_experts", 0, low=0) * self.f.integer("moe_intermediate_size")
        return self.moe("n_routed_experts", "moe_intermediate_size", shared)


class GraniteMoeReader(MixtralReader):
    """Granite 3 MoE and Granite 4: experts and a shared MLP after attention or Mamba 2."""

    def default_type(self, i: int) -> str:
        return "linear_attention" if self.family == "granitemoehybrid" else "full_attention"

    def mixer(self, i: int) -> Mixer:
        if self.types[i] != "linear_attention":
            return self.attention(i)
        f = self.f
        inner = f.integer("mamba_expand", high=64) * f.integer("hidden_size")
        heads = f.integer("mamba_n_heads")
        if inner % heads:
            raise f.wrong("mamba_n_heads", f"a divisor of the inner width ({inner})")
        return Mamba(
            2,
            inner,
            f.integer("mamba_d_state"),
            f.integer("mamba_d_conv"),
            f.integer("mamba_n_groups"),
            heads,
            bias=f.flag("mamba_proj_bias"),
            conv_bias=f.flag("mamba_conv_bias", True),
        )

    def has_rope(self, i: int) -> bool:
        return self.family != "granitemoehybrid" or self.f.text("position_embedding_type", "none") == "rope"

    def ffn(self, i: int) -> FeedForward | None:
        shared = self.f.integer("shared_intermediate_size", 0, low=0)
        if self.f.integer("num_local_experts", 0, low=0) == 0:
            return self.mlp("shared_intermediate_size")
        return self.moe("num_local_experts", "intermediate_size", shared)


class MambaReader(LayersReader):
    """Mamba and Mamba 2: the mixer is the whole layer, and there is no limit on positions but training."""

    def default_type(self, i: int) -> str:
        return "linear_attention"

    def mixer(self, i: int) -> Mixer:
        f = self.f
        hidden, state, conv = f.integer("hidden_size"), f.integer("state_size"), f.integer("conv_kernel")
        inner = int(f.number("expand") * hidden)
        bias, conv_bias = f.flag("use_bias"), f.flag("use_conv_bias", True)
        if self.family == "mamba":
            auto = f.data.get("time_step_rank", "auto") == "auto"
            rank = -(-hidden // 16) if auto else f.integer("time_step_rank")
            return Mamba(1, inner, state, conv, dt_rank=rank, bias=bias, conv_bias=conv_bias)
        heads = f.integer("num_heads")
        if heads * f.integer("head_dim") != inner:
            raise f.wrong("num_heads", f"heads times head_dim to be the inner width ({inner})")
        return Mamba(2, inner, state, conv, f.integer("n_groups"), heads, bias=bias, conv_bias=conv_bias)

    def ffn(self, i: int) -> FeedForward | None:
        return None
