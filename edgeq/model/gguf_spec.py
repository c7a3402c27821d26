"""A GGUF file's metadata and tensor list become a ModelSpec.

Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. What llama.cpp fixes in code rather than in the file
(Gemma's window pattern and local RoPE base, SmolLM3's layers without RoPE) is fixed here too.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeq.errors import EdgeqError
from edgeq.model.fields import MAX_LAYERS, Fields
from edgeq.model.gguf_check import check_tensors
from edgeq.model.gguf_file import GgufFile
from edgeq.model.gguf_ids import end_ids, token_id
from edgeq.model.gguf_rope import gguf_rope
from edgeq.model.rope_config import mscale
from edgeq.model.spec import (
    MLP,
    PLAN_ONLY,
    Activation,
    Attention,
    FeedForward,
    LatentAttention,
    Layer,
    Mixer,
    ModelSpec,
    MoE,
    NormLayout,
    QkNorm,
    Rope,
    Routing,
)


@dataclass(frozen=True, slots=True)
class _Arch:
    """What llama.cpp knows about an architecture beside the file: `pattern` n means every n-th layer sees all."""

    family: str
    layout: NormLayout = "pre"
    activation: Activation = "silu"
    qk_norm: QkNorm = "none"
    pattern: int = 0


_ARCHS = {
    "llama": _Arch("llama"),
    "mistral3": _Arch("mistral"),
    "qwen2": _Arch("qwen2"),
    "qwen3": _Arch("qwen3", qk_norm="head"),
    "qwen2moe": _Arch("qwen2_moe"),
    "qwen3moe": _Arch("qwen3_moe", qk_norm="head"),
    "olmoe": _Arch("olmoe", qk_norm="full"),
    "gemma2": _Arch("gemma2", "sandwich", "gelu_tanh", pattern=2),
    "gemma3": _Arch("gemma3_text", "sandwich", "gelu_tanh", "head", 6),
    "phi3": _Arch("phi3"),
    "smollm3": _Arch("smollm3"),
    "olmo2": _Arch("olmo2", "post", qk_norm="full", pattern=4),
    "granite": _Arch("granite"),
    "granitemoe": _Arch("granitemoe"),
    "deepseek2": _Arch("deepseek_v2"),
    "gpt-oss": _Arch("gpt_oss", pattern=2),
}
_LATENT = {"deepseek2"}
_GEMMA_27B_LAYERS = {"gemma2": 46, "gemma3": 62}  # these two scale by hidden_size / heads, not by the head's width


def read_gguf(path: Path) -> ModelSpec:
    """The architecture in a GGUF file.

    Raises:
        EdgeqError: the file is damaged, lacks a key, is a part of a split model, or its tensors contradict its keys.
    """
    return spec_of(GgufFile.open(path), name=path.name)


def spec_of(file: GgufFile, *, name: str) -> ModelSpec:
    """The architecture of an opened GGUF file."""
    reader = _Reader(file)
    spec = reader.spec(name)
    check_tensors(spec, file)
    return spec


class _Reader:
    def __init__(self, file: GgufFile) -> None:
        self.file, self.where = file, file.path
        top = Fields(file.metadata, file.path)
        self.name = top.text("general.architecture")
        self.known = self.name in _ARCHS
        self.arch = _ARCHS.get(self.name, _Arch(self.name))
        self.f = Fields(_own(file.metadata, self.name), file.path, self.name)
        if top.integer("split.count", 1, low=0) > 1:
            raise EdgeqError("one part of a split GGUF", where=self.where, hint="Merge it: llama-gguf-split --merge")
        self.n_layers = self.f.integer("block_count", high=MAX_LAYERS)
        self.hidden = self.f.integer("embedding_length")
        self.max_positions = self.f.integer("context_length")

    def has(self, name: str) -> bool:
        return name in self.file.tensors

    def spec(self, name: str) -> ModelSpec:
        f = self.f
        embed = self.file.tensors.get("token_embd.weight")
        if embed is None or len(embed.shape) != 2:
            raise EdgeqError("tensor token_embd.weight is missing", where=self.where, hint="Download the file again")
        gemma = self.name.startswith("gemma")
        family = self._family()
        made = ModelSpec(
            name=name,
            family=family,
            hidden_size=self.hidden,
            vocab_size=embed.shape[0],
            layers=tuple(self.layer(i) for i in range(self.n_layers)),
            tied=not self.has("output.weight"),
            max_positions=self.max_positions,
            norm_eps=_short(f.number("attention.layer_norm_rms_epsilon", 1e-5)),
            norm_layout=self.arch.layout,
            norm_offset=0.0,  # the converter already added Gemma's one
            embed_scale=math.sqrt(self.hidden) if gemma else _short(f.number("embedding_scale", 1.0)),
            residual_scale=_short(f.number("residual_scale", 1.0)),
            logit_scale=1.0 / _short(f.number("logit_scale", 1.0)),
            logit_softcap=f.optional_number("final_logit_softcapping"),
            head_bias=self.has("output.bias"),
            bos_id=token_id(self.file, "bos"),
            eos_ids=end_ids(self.file),
            pad_id=token_id(self.file, "padding"),
            origin="gguf",
            location=str(Path(self.where).resolve()),
            source_dtype=self._dtype(),
        )
        if self.known:
            return made
        reason = f"{self.name} is not an architecture edgeq knows: read as attention and MLP from the file's keys"
        return replace(made, estimated=(reason, PLAN_ONLY))

    def _family(self) -> str:
        if self.name == "llama" and self.f.integer("expert_count", 0, low=0):
            return "mixtral"
        if self.name == "deepseek2" and self.f.integer("expert_gating_func", 1, low=0) == 2:  # sigmoid
            return "deepseek_v3"
        if self.name == "olmo2" and self.f.has("attention.sliding_window"):
            return "olmo3"
        return self.arch.family

    def _dtype(self) -> str:
        sizes: Counter[str] = Counter()
        for t in self.file.tensors.values():
            sizes[t.type] += math.prod(t.shape)
        return sizes.most_common(1)[0][0]

    def layer(self, i: int) -> Layer:
        mixer: Mixer = self.latent() if self.name in _LATENT else self.attention(i)
        return Layer(mixer, self.ffn(i))

    def attention(self, i: int) -> Attention:
        f, at = self.f, f"blk.{i}."
        heads, kv_heads = self._at("attention.head_count", i), self._at("attention.head_count_kv", i, "head_count")
        if heads % kv_heads:
            raise f.wrong("attention.head_count_kv", f"a divisor of the head count ({heads})")
        head_dim = f.integer("attention.key_length", self.hidden // heads)
        if head_dim < 2 or (not f.has("attention.key_length") and self.hidden % heads):
            raise f.wrong("attention.head_count", f"a divisor of the embedding length ({self.hidden})")
        window = self._window(i)
        return Attention(
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            scale=self._scale(heads, head_dim),
            rope=self._rope(i, head_dim, window is not None),
            window=window,
            softcap=f.optional_number("attn_logit_softcapping"),
            qk_norm=self.arch.qk_norm,
            qkv_bias=self.has(f"{at}attn_q.bias"),
            o_bias=self.has(f"{at}attn_output.bias"),
            sinks=self.has(f"{at}attn_sinks.weight"),
        )

    def _at(self, key: str, i: int, fallback: str | None = None) -> int:
        """A key that is one number, or one for each layer."""
        if fallback is not None and not self.f.has(key):
            return self._at(f"attention.{fallback}", i)
        if not isinstance(self.f.data.get(key), list):
            return self.f.integer(key)
        listed = self.f.integers(key) or []
        if len(listed) != self.n_layers or min(listed) < 1:
            raise self.f.wrong(key, f"one number above zero for each of {self.n_layers} layers")
        return listed[i]

    def _scale(self, heads: int, head_dim: int) -> float:
        given = self.f.number("attention.scale", 0.0, positive=False)
        if given:
            return _short(given)
        wide = _GEMMA_27B_LAYERS.get(self.name) == self.n_layers
        return 1.0 / math.sqrt(self.hidden / heads if wide else head_dim)

    def _window(self, i: int) -> int | None:
        window = self.f.optional_integer("attention.sliding_window")
        if not window:
            return None
        if self.arch.pattern:
            return window if (i + 1) % self.arch.pattern else None
        return window

    def _rope(self, i: int, head_dim: int, sliding: bool) -> Rope | None:
        if self.name == "smollm3" and (i + 1) % 4 == 0:
            return None
        dim = self.f.integer("rope.dimension_count", head_dim)
        if dim < 2 or dim % 2 or dim > head_dim:
            raise self.f.wrong("rope.dimension_count", f"an even number up to the head width ({head_dim})")
        if self.name == "gemma3" and sliding:
            return Rope(_short(self.f.number("rope.freq_base_swa", 10_000.0)), dim)
        return gguf_rope(self.file, self.f, dim, self.max_positions)

    def latent(self) -> LatentAttention:
        f = self.f
        rope_dim = f.integer("rope.dimension_count")
        key = f.integer(f.first("attention.key_length_mla", "attention.key_length"))
        if key <= rope_dim or rope_dim % 2:
            raise f.wrong("attention.key_length", f"more than the rotary part ({rope_dim})")
        rope = gguf_rope(self.file, f, rope_dim, self.max_positions)
        # The file keeps 0.1 * mscale_all_dim; the temperature enters the softmax scale squared.
        all_dims = 10.0 * f.number("rope.scaling.yarn_log_multiplier", 0.0, positive=False)
        scale = mscale(rope.param("factor", 1.0), all_dims) ** 2 / math.sqrt(key)
        return LatentAttention(
            heads=f.integer("attention.head_count"),
            kv_lora_rank=f.integer("attention.kv_lora_rank"),
            q_lora_rank=f.optional_integer("attention.q_lora_rank") or None,
            qk_nope_dim=key - rope_dim,
            qk_rope_dim=rope_dim,
            v_dim=f.integer(f.first("attention.value_length_mla", "attention.value_length")),
            scale=scale,
            rope=rope,
        )

    def ffn(self, i: int) -> FeedForward:
        f, at, act = self.f, f"blk.{i}.", self.arch.activation
        experts = f.integer("expert_count", 0, low=0, high=1 << 16)
        if not experts or i < f.integer("leading_dense_block_count", 0, low=0):
            gated = self.name == "phi3" or self.has(f"{at}ffn_gate.weight")
            bias = self.has(f"{at}ffn_down.bias")
            return MLP(self._at("feed_forward_length", i), act, bias=bias, gated=gated)
        width = f.integer(f.first("expert_feed_forward_length", "feed_forward_length"))
        active = f.integer("expert_used_count")
        if active > experts:
            raise f.wrong("expert_used_count", f"at most the number of experts ({experts})")
        shared = self.file.tensors.get(f"{at}ffn_up_shexp.weight")
        return MoE(
            experts,
            active,
            width,
            shared_intermediate=shared.shape[0] if shared else 0,
            shared_gate=self.has(f"{at}ffn_gate_inp_shexp.weight"),
            activation=act,
            router_bias=self.has(f"{at}ffn_gate_inp.bias"),
            expert_bias=self.has(f"{at}ffn_gate_exps.bias"),
            routing=self._routing(),
            limit=7.0 if self.name == "gpt-oss" else None,
        )

    def _routing(self) -> Routing:
        """Fixed in llama.cpp's code for most; DeepSeek's files say it."""
        if self.name in _LATENT:
            if self.f.integer("expert_gating_func", 1, low=0) == 2:
                return "sigmoid"
            return "top" if self.f.flag("expert_weights_norm") else "all"
        return "all" if self.name in ("qwen2moe", "olmoe") else "top"


def _own(metadata: Mapping[str, Any], arch: str) -> dict[str, Any]:
    """The architecture's keys without its name; arrays as lists."""
    prefix = f"{arch}."
    own = {k.removeprefix(prefix): v for k, v in metadata.items() if k.startswith(prefix)}
    return {k: v.tolist() if hasattr(v, "tolist") else v for k, v in own.items()}


def _short(value: float) -> float:
    """A float32 of the file as the decimal that was meant: 9.999999747e-06 is 1e-05."""
    return float(f"{value:.7g}")
