"""The tensors of a model, one by one: canonical name, role, shape. Counting, sizing and loading all read this list.

Canonical names are short and the same whatever the source file calls them: `embed`, `head`, `final_norm`,
`layers.7.q`, `layers.7.down`, ... Linear weights are (out_features, in_features), as PyTorch stores them;
stacked experts are (experts, out_features, in_features).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from edgeq.model.spec import MLP, Attention, GatedDelta, LatentAttention, Mamba, ModelSpec, MoE


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One parameter tensor.

    `linear` marks a matrix that multiplies activations (what a scheme quantizes); `expert` one of which only
    `active / experts` is read for a token.
    """

    name: str
    role: str
    shape: tuple[int, ...]
    layer: int | None = None
    linear: bool = False
    expert: bool = False

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


@cache
def tensors(spec: ModelSpec) -> tuple[TensorSpec, ...]:
    """Every parameter of `spec`, in file order. A tied head is not listed: it is the embedding."""
    D, V = spec.hidden_size, spec.vocab_size
    out = [TensorSpec("embed", "embed", (V, D))]
    for i, layer in enumerate(spec.layers):
        out += [*_norms(spec, i), *_mixer(spec, i, layer.mixer), *_ffn(spec, i, layer.ffn)]
    out.append(TensorSpec("final_norm", "norm", (D,)))
    if not spec.tied:
        out.append(TensorSpec("head", "head", (V, D), linear=True))
    if spec.head_bias:
        out.append(TensorSpec("head_bias", "bias", (V,)))
    return tuple(out)


def parameters(spec: ModelSpec) -> int:
    """Total parameters; a tied embedding counts once."""
    return sum(t.numel for t in tensors(spec))


def active_parameters(spec: ModelSpec) -> int:
    """Parameters used for one token: of the experts, only the active ones."""
    total = 0
    for t in tensors(spec):
        ffn = spec.layers[t.layer].ffn if t.layer is not None else None
        total += t.numel * ffn.active // ffn.experts if t.expert and isinstance(ffn, MoE) else t.numel
    return total


def by_role(spec: ModelSpec) -> dict[str, int]:
    """Parameters per role, in first-seen order."""
    counts: dict[str, int] = {}
    for t in tensors(spec):
        counts[t.role] = counts.get(t.role, 0) + t.numel
    return counts


def _norms(spec: ModelSpec, i: int) -> Iterator[TensorSpec]:
    names = {
        "pre": ("attn_norm", "mlp_norm"),
        "post": ("post_attn_norm", "post_mlp_norm"),
        "sandwich": ("attn_norm", "post_attn_norm", "mlp_norm", "post_mlp_norm"),
    }[spec.norm_layout]
    if spec.layers[i].ffn is None:
        names = names[:1]
    for name in names:
        yield TensorSpec(f"layers.{i}.{name}", "norm", (spec.hidden_size,), i)


def _linear(i: int, name: str, out: int, inp: int) -> TensorSpec:
    return TensorSpec(f"layers.{i}.{name}", name, (out, inp), i, linear=True)


def _vector(i: int, name: str, role: str, *shape: int) -> TensorSpec:
    return TensorSpec(f"layers.{i}.{name}", role, shape, i)


def _mixer(spec: ModelSpec, i: int, m: object) -> Iterator[TensorSpec]:
    if isinstance(m, Attention):
        yield from _attention(spec.hidden_size, i, m)
    elif isinstance(m, LatentAttention):
        yield from _latent(spec.hidden_size, i, m)
    elif isinstance(m, GatedDelta):
        yield from _gated_delta(spec.hidden_size, i, m)
    elif isinstance(m, Mamba):
        yield from _mamba(spec.hidden_size, i, m)


def _attention(D: int, i: int, a: Attention) -> Iterator[TensorSpec]:
    q, kv = a.heads * a.head_dim, a.kv_heads * a.head_dim
    q_rows = 2 * q if a.gated else q
    yield _linear(i, "q", q_rows, D)
    yield _linear(i, "k", kv, D)
    yield _linear(i, "v", kv, D)
    yield _linear(i, "o", D, q)
    if a.qkv_bias:
        for name, n in (("q_bias", q_rows), ("k_bias", kv), ("v_bias", kv)):
            yield _vector(i, name, "bias", n)
    if a.o_bias:
        yield _vector(i, "o_bias", "bias", D)
    if a.qk_norm != "none":
        yield _vector(i, "q_norm", "norm", a.head_dim if a.qk_norm == "head" else q)
        yield _vector(i, "k_norm", "norm", a.head_dim if a.qk_norm == "head" else kv)
    if a.sinks:
        yield _vector(i, "sinks", "sinks", a.heads)


def _latent(D: int, i: int, m: LatentAttention) -> Iterator[TensorSpec]:
    q_out = m.heads * (m.qk_nope_dim + m.qk_rope_dim)
    if m.q_lora_rank is None:
        yield _linear(i, "q", q_out, D)
    else:
        yield _linear(i, "q_a", m.q_lora_rank, D)
        yield _vector(i, "q_a_norm", "norm", m.q_lora_rank)
        yield _linear(i, "q_b", q_out, m.q_lora_rank)
    yield _linear(i, "kv_a", m.kv_lora_rank + m.qk_rope_dim, D)
    yield _vector(i, "kv_a_norm", "norm", m.kv_lora_rank)
    yield _linear(i, "kv_b", m.heads * (m.qk_nope_dim + m.v_dim), m.kv_lora_rank)
    yield _linear(i, "o", D, m.heads * m.v_dim)
    if m.bias:
        if m.q_lora_rank is not None:
            yield _vector(i, "q_a_bias", "bias", m.q_lora_rank)
        yield _vector(i, "kv_a_bias", "bias", m.kv_lora_rank + m.qk_rope_dim)
        yield _vector(i, "o_bias", "bias", D)


def _gated_delta(D: int, i: int, g: GatedDelta) -> Iterator[TensorSpec]:
    k, v = g.key_heads * g.key_dim, g.value_heads * g.value_dim
    yield _linear(i, "in_qkv", 2 * k + v, D)
    yield _linear(i, "in_z", v, D)
    yield _linear(i, "in_ba", 2 * g.value_heads, D)
    yield _vector(i, "conv", "conv", 2 * k + v, 1, g.conv_kernel)
    yield _vector(i, "dt_bias", "state", g.value_heads)
    yield _vector(i, "a_log", "state", g.value_heads)
    yield _vector(i, "mixer_norm", "norm", g.value_dim)
    yield _linear(i, "o", D, v)


def _mamba(D: int, i: int, m: Mamba) -> Iterator[TensorSpec]:
    grouped = 2 * m.groups * m.d_state
    channels = m.d_inner if m.version == 1 else m.d_inner + grouped
    projected = 2 * m.d_inner if m.version == 1 else m.d_inner + channels + m.heads
    yield _linear(i, "in_proj", projected, D)
    yield _vector(i, "conv", "conv", channels, 1, m.conv_kernel)
    if m.conv_bias:
        yield _vector(i, "conv_bias", "bias", channels)
    if m.version == 1:
        yield _linear(i, "x_proj", m.dt_rank + 2 * m.d_state, m.d_inner)
        yield _linear(i, "dt_proj", m.d_inner, m.dt_rank)
        yield _vector(i, "dt_bias", "bias", m.d_inner)
        yield _vector(i, "a_log", "state", m.d_inner, m.d_state)
        yield _vector(i, "d", "state", m.d_inner)
    else:
        for name in ("dt_bias", "a_log", "d"):
            yield _vector(i, name, "state", m.heads)
        yield _vector(i, "mixer_norm", "norm", m.d_inner)
    yield _linear(i, "o", D, m.d_inner)
    if m.bias:
        yield _vector(i, "in_bias", "bias", projected)
        yield _vector(i, "o_bias", "bias", D)


def _ffn(spec: ModelSpec, i: int, f: object) -> Iterator[TensorSpec]:
    D = spec.hidden_size
    if isinstance(f, MLP):
        if f.gated:
            yield _linear(i, "gate", f.intermediate, D)
        yield _linear(i, "up", f.intermediate, D)
        yield _linear(i, "down", D, f.intermediate)
        if f.bias:
            names = ("gate_bias", "up_bias") if f.gated else ("up_bias",)
            for name in names:
                yield _vector(i, name, "bias", f.intermediate)
            yield _vector(i, "down_bias", "bias", D)
    elif isinstance(f, MoE):
        yield from _moe(D, i, f)


def _moe(D: int, i: int, f: MoE) -> Iterator[TensorSpec]:
    yield _vector(i, "router", "router", f.experts, D)
    if f.router_bias:
        yield _vector(i, "router_bias", "bias", f.experts)
    for name, out, inp in (("gate", f.intermediate, D), ("up", f.intermediate, D), ("down", D, f.intermediate)):
        yield TensorSpec(f"layers.{i}.experts_{name}", f"experts_{name}", (f.experts, out, inp), i, True, True)
        if f.expert_bias:
            yield TensorSpec(f"layers.{i}.experts_{name}_bias", "bias", (f.experts, out), i, expert=True)
    if f.shared_intermediate:
        yield _linear(i, "shared_gate", f.shared_intermediate, D)
        yield _linear(i, "shared_up", f.shared_intermediate, D)
        yield _linear(i, "shared_down", D, f.shared_intermediate)
    if f.shared_gate:
        yield _vector(i, "shared_router", "router", 1, D)
