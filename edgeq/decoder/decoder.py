"""The decoder, written once: every dense architecture, over the operations of any backend.

What tells architectures apart is data in the `ModelSpec` (norm layout, windows, query/key norms, multipliers), so a
new one is a new reader and perhaps one flag here. The reference for each is its implementation in transformers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

from edgeq.decoder.ops import Ops, T
from edgeq.errors import EdgeqError
from edgeq.model.spec import MLP, Attention, GatedDelta, LatentAttention, Mamba, ModelSpec, MoE, refuse_estimate


@dataclass(frozen=True, slots=True)
class Stream(Generic[T]):
    """The residual stream between blocks: `x`, and the last branch `delta` that is still to be added to it.

    The addition is left to the next norm because runtimes have one kernel for both.
    """

    x: T
    delta: T | None = None


def decoder(ops: Ops[T], spec: ModelSpec, ids: T) -> T:
    """Logits (batch, tokens, vocab) for integer `ids` (batch, tokens).

    Raises:
        EdgeqError: a layer is not softmax attention with a dense MLP.
    """
    check_supported(spec)
    stream = embedding(ops, spec, ids)
    for i in range(spec.n_layers):
        stream = block(ops, spec, i, stream)
    return head(ops, spec, stream)


def check_supported(spec: ModelSpec) -> None:
    """Raise an EdgeqError naming the first layer that this decoder can't run, or what of the model is only guessed."""
    refuse_estimate(spec)
    kinds = {MoE: "experts", LatentAttention: "latent attention", GatedDelta: "a gated delta mixer", Mamba: "a Mamba"}
    for i, layer in enumerate(spec.layers):
        for part in (layer.mixer, layer.ffn):
            name = kinds.get(type(part), "no feed-forward" if part is None else "")
            if isinstance(part, Attention) and (part.gated or part.sinks):
                name = "gated attention" if part.gated else "attention sinks"
            if name:
                raise EdgeqError(
                    f"{spec.family}: layer {i} has {name}, which edgeq can plan but not run",
                    where=spec.location or spec.name,
                    hint="Dense softmax-attention models run",
                )


def embedding(ops: Ops[T], spec: ModelSpec, ids: T) -> Stream[T]:
    return Stream(_scaled(ops, ops.embed(ids), spec.embed_scale))


def block(ops: Ops[T], spec: ModelSpec, i: int, stream: Stream[T]) -> Stream[T]:
    """Layer `i`: attention, then MLP, each a branch added to the residual stream."""
    layer = spec.layers[i]
    assert isinstance(layer.mixer, Attention) and isinstance(layer.ffn, MLP)
    y, stream = _enter(ops, spec, stream, f"layers.{i}.attn_norm")
    stream = _leave(ops, spec, stream, _attention(ops, i, layer.mixer, y), f"layers.{i}.post_attn_norm")
    y, stream = _enter(ops, spec, stream, f"layers.{i}.mlp_norm")
    return _leave(ops, spec, stream, _mlp(ops, i, layer.ffn, y), f"layers.{i}.post_mlp_norm")


def head(ops: Ops[T], spec: ModelSpec, stream: Stream[T]) -> T:
    y, _ = _add_norm(ops, stream, "final_norm")
    return ops.logits(y, spec.logit_scale, spec.logit_softcap)


def settled(ops: Ops[T], stream: Stream[T]) -> T:
    """The residual stream as one tensor, its pending branch added."""
    return stream.x if stream.delta is None else ops.add(stream.x, stream.delta)


def _attention(ops: Ops[T], i: int, attention: Attention, y: T) -> T:
    qkv = ops.linear(y, (f"layers.{i}.q", f"layers.{i}.k", f"layers.{i}.v"))
    return ops.linear(ops.attention(qkv, i, attention), (f"layers.{i}.o",))


def _mlp(ops: Ops[T], i: int, mlp: MLP, y: T) -> T:
    names = (f"layers.{i}.gate", f"layers.{i}.up") if mlp.gated else (f"layers.{i}.up",)
    return ops.linear(ops.activate(ops.linear(y, names), mlp), (f"layers.{i}.down",))


def _enter(ops: Ops[T], spec: ModelSpec, stream: Stream[T], norm: str) -> tuple[T, Stream[T]]:
    """What a branch reads, and the stream it will be added to."""
    if spec.norm_layout == "post":
        x = settled(ops, stream)
        return x, Stream(x)
    return _add_norm(ops, stream, norm)


def _leave(ops: Ops[T], spec: ModelSpec, stream: Stream[T], branch: T, norm: str) -> Stream[T]:
    if spec.norm_layout != "pre":
        branch = ops.norm(branch, norm)
    return Stream(stream.x, _scaled(ops, branch, spec.residual_scale))


def _add_norm(ops: Ops[T], stream: Stream[T], norm: str) -> tuple[T, Stream[T]]:
    if stream.delta is None:
        return ops.norm(stream.x, norm), stream
    y, x = ops.add_norm(stream.x, stream.delta, norm)
    return y, Stream(x)


def _scaled(ops: Ops[T], x: T, factor: float) -> T:
    return x if factor == 1.0 else ops.scale(x, factor)
