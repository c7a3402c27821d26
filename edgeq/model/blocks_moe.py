"""Mixtures of experts, latent attention and hybrids with linear attention: how each family's config describes them."""

from __future__ import annotations

import math

from edgeq.errors import EdgeqError
from edgeq.model.blocks import LayersReader
from edgeq.model.rope_config import mscale, read_rope
from edgeq.model.spec import Attention, FeedForward, GatedDelta, LatentAttention, Mamba, Mixer, MoE, Rope, Routing


class MixtralReader(LayersReader):
    def ffn(self, i: int) -> FeedForward | None:
        return self.moe("num_local_experts", "intermediate_size")

    def moe(
        self,
        count: str,
        width: str,
        shared: int = 0,
        *,
        shared_gate: bool = False,
        bias: bool = False,
        routing: Routing = "top",
        limit: float | None = None,
    ) -> MoE:
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
            routing=routing,
            limit=limit,
            alpha=self.f.number("swiglu_alpha", 1.702),
        )

    def softmax_over(self) -> Routing:
        """`norm_topk_prob`: the chosen experts' weights add up to one."""
        return "top" if self.f.flag("norm_topk_prob") else "all"


class GptOssReader(MixtralReader):
    def ffn(self, i: int) -> FeedForward | None:
        limit = self.f.number("swiglu_limit", 7.0)
        return self.moe("num_local_experts", "intermediate_size", bias=True, limit=limit)

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
            return self.moe("num_experts", "moe_intermediate_size", routing=self.softmax_over())
        shared = self.f.integer("shared_expert_intermediate_size")
        return self.moe("num_experts", "moe_intermediate_size", shared, shared_gate=True, routing=self.softmax_over())


class OlmoeReader(MixtralReader):
    """OLMoE: experts as in Qwen2-MoE, norms of queries and keys over the whole projection."""

    def attention(self, i: int) -> Attention:
        if self.f.optional_number("clip_qkv") is not None:
            raise EdgeqError("queries, keys and values that are clipped (clip_qkv)", where=self.f.where)
        return super().attention(i)

    def ffn(self, i: int) -> FeedForward | None:
        return self.moe("num_experts", "intermediate_size", routing=self.softmax_over())


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
        routing: Routing = "sigmoid" if self.family == "deepseek_v3" else self.softmax_over()
        return self.moe("n_routed_experts", "moe_intermediate_size", shared, routing=routing)


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
