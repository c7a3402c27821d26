"""The tensors a Hugging Face checkpoint must hold for a spec, with their shapes in the file.

Beside the one-to-one names of edgeq.model.names: experts (one tensor each, or stacked), gated delta and Mamba layers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from edgeq.model.names import hf_prefix, hf_slice
from edgeq.model.spec import MLP, Attention, GatedDelta, LatentAttention, Mamba, ModelSpec, MoE
from edgeq.model.tensors import TensorSpec, tensors

Shape = tuple[int, ...]
_FFN = ("gate", "up", "down")


def stored_shapes(spec: ModelSpec, stored: Collection[str]) -> dict[str, Shape]:
    """Tensor name in the file -> shape. `stored`, the names found, decides between spellings of the same thing."""
    if spec.family in ("mamba", "mamba2"):
        return dict(_mamba_model(spec))
    prefix = hf_prefix(stored)
    out: dict[str, Shape] = {}
    for t in tensors(spec):
        if _one_to_one(spec, t):
            found = hf_slice(spec, t, prefix)
            out[found.name] = _grown(out.get(found.name), t.shape, fused=found.row_start is not None)
    for i, layer in enumerate(spec.layers):
        at = f"{prefix}layers.{i}."
        if isinstance(layer.mixer, GatedDelta):
            out |= {f"{at}linear_attn.{n}": s for n, s in _gated_delta(spec, layer.mixer)}
        if isinstance(layer.mixer, Mamba):
            out |= {f"{at}mamba.{n}": s for n, s in _mamba(spec, layer.mixer)}
        if isinstance(layer.ffn, MoE) or spec.family == "granitemoehybrid":
            out |= {at + n: s for n, s in _experts(spec, layer.ffn, at, stored)}
    return out


def _grown(before: Shape | None, shape: Shape, *, fused: bool) -> Shape:
    return (before[0] + shape[0], *shape[1:]) if before and fused else shape


def _one_to_one(spec: ModelSpec, t: TensorSpec) -> bool:
    if t.layer is None:
        return True
    layer, part = spec.layers[t.layer], t.name.split(".", 2)[2]
    if part.endswith("_norm") and part in ("attn_norm", "mlp_norm", "post_attn_norm", "post_mlp_norm"):
        return True
    if part.removesuffix("_bias") in _FFN:
        return isinstance(layer.ffn, MLP) and spec.family != "granitemoehybrid"
    if part.startswith(("router", "experts_", "shared_")):
        return False
    return isinstance(layer.mixer, (Attention, LatentAttention))


def _experts(spec: ModelSpec, f: object, at: str, stored: Collection[str]) -> Iterator[tuple[str, Shape]]:
    D = spec.hidden_size
    if spec.family.startswith("granitemoe"):
        yield from _granite(D, f)
        return
    if not isinstance(f, MoE):
        return
    E, W = f.experts, f.intermediate
    mixtral = spec.family == "mixtral" and f"{at}mlp.gate.weight" not in stored
    block = "block_sparse_moe." if mixtral else "mlp."
    yield f"{block}{'router' if spec.family == 'gpt_oss' else 'gate'}.weight", (E, D)
    if spec.family == "gpt_oss":
        yield from _gpt_oss(D, f)
    elif f"{at}{block}experts.gate_up_proj" in stored:
        yield f"{block}experts.gate_up_proj", (E, 2 * W, D)
        yield f"{block}experts.down_proj", (E, D, W)
    else:
        names = ("w1", "w3", "w2") if mixtral else tuple(f"{n}_proj" for n in _FFN)
        for e in range(E):
            for name, shape in zip(names, ((W, D), (W, D), (D, W)), strict=True):
                yield f"{block}experts.{e}.{name}.weight", shape
    yield from _shared(spec, D, f)


def _shared(spec: ModelSpec, D: int, f: MoE) -> Iterator[tuple[str, Shape]]:
    S = f.shared_intermediate
    if S:
        name = "shared_experts" if spec.family.startswith("deepseek") else "shared_expert"
        for part, shape in zip(_FFN, ((S, D), (S, D), (D, S)), strict=True):
            yield f"mlp.{name}.{part}_proj.weight", shape
    if f.shared_gate:
        yield "mlp.shared_expert_gate.weight", (1, D)


def _gpt_oss(D: int, f: MoE) -> Iterator[tuple[str, Shape]]:
    E, W = f.experts, f.intermediate
    yield "mlp.router.bias", (E,)
    yield "mlp.experts.gate_up_proj", (E, D, 2 * W)  # stored (in, out)
    yield "mlp.experts.gate_up_proj_bias", (E, 2 * W)
    yield "mlp.experts.down_proj", (E, W, D)
    yield "mlp.experts.down_proj_bias", (E, D)


def _granite(D: int, f: object) -> Iterator[tuple[str, Shape]]:
    shared = f.shared_intermediate if isinstance(f, MoE) else f.intermediate if isinstance(f, MLP) else 0
    if shared:
        yield "shared_mlp.input_linear.weight", (2 * shared, D)
        yield "shared_mlp.output_linear.weight", (D, shared)
    if isinstance(f, MoE):
        yield "block_sparse_moe.input_linear.weight", (f.experts, 2 * f.intermediate, D)
        yield "block_sparse_moe.output_linear.weight", (f.experts, D, f.intermediate)
        yield "block_sparse_moe.router.layer.weight", (f.experts, D)


def _gated_delta(spec: ModelSpec, g: GatedDelta) -> Iterator[tuple[str, Shape]]:
    D, k, v = spec.hidden_size, g.key_heads * g.key_dim, g.value_heads * g.value_dim
    if spec.family == "qwen3_next":  # interleaved by key head, so no slice of rows is one projection
        yield "in_proj_qkvz.weight", (2 * k + 2 * v, D)
        yield "in_proj_ba.weight", (2 * g.value_heads, D)
    else:
        yield "in_proj_qkv.weight", (2 * k + v, D)
        yield "in_proj_z.weight", (v, D)
        yield "in_proj_b.weight", (g.value_heads, D)
        yield "in_proj_a.weight", (g.value_heads, D)
    yield "conv1d.weight", (2 * k + v, 1, g.conv_kernel)
    yield "dt_bias", (g.value_heads,)
    yield "A_log", (g.value_heads,)
    yield "norm.weight", (g.value_dim,)
    yield "out_proj.weight", (D, v)


_MAMBA = {
    "in_proj": "in_proj.weight",
    "in_bias": "in_proj.bias",
    "conv": "conv1d.weight",
    "conv_bias": "conv1d.bias",
    "x_proj": "x_proj.weight",
    "dt_proj": "dt_proj.weight",
    "a_log": "A_log",
    "d": "D",
    "mixer_norm": "norm.weight",
    "o": "out_proj.weight",
    "o_bias": "out_proj.bias",
}


def _mamba(spec: ModelSpec, m: Mamba) -> Iterator[tuple[str, Shape]]:
    names = {**_MAMBA, "dt_bias": "dt_proj.bias" if m.version == 1 else "dt_bias"}
    first = next(i for i, layer in enumerate(spec.layers) if layer.mixer == m)
    for t in tensors(spec):
        part = t.name.split(".", 2)[-1]
        if t.layer == first and part in names:
            yield names[part], t.shape


def _mamba_model(spec: ModelSpec) -> Iterator[tuple[str, Shape]]:
    D = spec.hidden_size
    yield "backbone.embeddings.weight", (spec.vocab_size, D)
    yield "backbone.norm_f.weight", (D,)
    if not spec.tied:
        yield "lm_head.weight", (spec.vocab_size, D)
    for i, layer in enumerate(spec.layers):
        yield f"backbone.layers.{i}.norm.weight", (D,)
        if isinstance(layer.mixer, Mamba):
            for name, shape in _mamba(spec, layer.mixer):
                yield f"backbone.layers.{i}.mixer.{name}", shape
