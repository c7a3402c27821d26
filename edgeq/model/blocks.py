"""How each family's config describes its layers. One small reader a family; the common case is `LayersReader`."""

from __future__ import annotations

import math
from typing import ClassVar, get_args

from edgeq.errors import EdgeqError
from edgeq.model.fields import MAX_LAYERS, Fields
from edgeq.model.rope_config import read_rope
from edgeq.model.spec import (
    MLP,
    Activation,
    Attention,
    FeedForward,
    Layer,
    Mixer,
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
_QK_NORM: dict[str, QkNorm] = {
    "qwen3": "head",
    "qwen3_moe": "head",
    "gemma3_text": "head",
    "olmo2": "full",
    "olmoe": "full",
}
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
