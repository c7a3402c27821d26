"""The decoder, written once: softmax attention with MLPs or experts, over the operations of any backend.

What tells architectures apart is data in the `ModelSpec` (norm layout, windows, query/key norms, multipliers), so a
new one is a new reader and perhaps one flag here. The reference for each is its implementation in transformers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, cast

from edgeq.decoder.ops import NONE, Ability, ExpertOps, Ops, T
from edgeq.errors import EdgeqError
from edgeq.model.spec import (
    MLP,
    Attention,
    FeedForward,
    GatedDelta,
    LatentAttention,
    Mamba,
    Mixer,
    ModelSpec,
    MoE,
    refuse_estimate,
)

NOT_RUN = "which edgeq can plan but not run"
NOT_HERE = "which edgeq can plan but not run here"


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
        EdgeqError: a layer is not softmax attention with an MLP or experts, or `ops` lacks what it has.
    """
    check_supported(spec, getattr(ops, "able", NONE))
    stream = embedding(ops, spec, ids)
    for i in range(spec.n_layers):
        stream = block(ops, spec, i, stream)
    return head(ops, spec, stream)


def check_supported(spec: ModelSpec, able: frozenset[Ability] = NONE) -> None:
    """Raise an EdgeqError naming the first layer that can't be run, or what of the model is only guessed.

    Args:
        able: what the backend has beside the operations of dense models.
    """
    refuse_estimate(spec)
    for i, layer in enumerate(spec.layers):
        why = _mixer_lacks(layer.mixer, able) or _ffn_lacks(layer.ffn, able)
        if why is not None:
            raise EdgeqError(
                f"{spec.family}: layer {i} has {why}",
                where=spec.location or spec.name,
                hint="Dense softmax-attention models run",
            )


def _mixer_lacks(mixer: Mixer, able: frozenset[Ability]) -> str | None:
    kinds = {LatentAttention: "latent attention", GatedDelta: "a gated delta mixer", Mamba: "a Mamba"}
    if not isinstance(mixer, Attention):
        return f"{kinds[type(mixer)]}, {NOT_RUN}"
    if mixer.gated:
        return f"gated attention, {NOT_RUN}"
    return f"attention sinks, {NOT_HERE}" if mixer.sinks and "sinks" not in able else None


def _ffn_lacks(ffn: FeedForward | None, able: frozenset[Ability]) -> str | None:
    if ffn is None:
        return f"no feed-forward, {NOT_RUN}"
    if isinstance(ffn, MLP):
        return None
    if ffn.routing == "sigmoid":
        return f"experts chosen by sigmoids, {NOT_RUN}"
    return None if "experts" in able else f"experts, {NOT_HERE}"


def embedding(ops: Ops[T], spec: ModelSpec, ids: T) -> Stream[T]:
    return Stream(_scaled(ops, ops.embed(ids), spec.embed_scale))


def block(ops: Ops[T], spec: ModelSpec, i: int, stream: Stream[T]) -> Stream[T]:
    """Layer `i`: attention, then MLP or experts, each a branch added to the residual stream."""
    layer = spec.layers[i]
    assert isinstance(layer.mixer, Attention) and isinstance(layer.ffn, (MLP, MoE))
    y, stream = _enter(ops, spec, stream, f"layers.{i}.attn_norm")
    stream = _leave(ops, spec, stream, _attention(ops, i, layer.mixer, y), f"layers.{i}.post_attn_norm")
    y, stream = _enter(ops, spec, stream, f"layers.{i}.mlp_norm")
    return _leave(ops, spec, stream, _feed_forward(ops, i, layer.ffn, y), f"layers.{i}.post_mlp_norm")


def head(ops: Ops[T], spec: ModelSpec, stream: Stream[T]) -> T:
    y, _ = _add_norm(ops, stream, "final_norm")
    return ops.logits(y, spec.logit_scale, spec.logit_softcap)


def settled(ops: Ops[T], stream: Stream[T]) -> T:
    """The residual stream as one tensor, its pending branch added."""
    return stream.x if stream.delta is None else ops.add(stream.x, stream.delta)


def _attention(ops: Ops[T], i: int, attention: Attention, y: T) -> T:
    qkv = ops.linear(y, (f"layers.{i}.q", f"layers.{i}.k", f"layers.{i}.v"))
    return ops.linear(ops.attention(qkv, i, attention), (f"layers.{i}.o",))


def _feed_forward(ops: Ops[T], i: int, ffn: MLP | MoE, y: T) -> T:
    if isinstance(ffn, MLP):
        return _mlp(ops, f"layers.{i}.", ffn, y)
    experts = cast("ExpertOps[T]", ops)  # check_supported has seen that it is able
    routed = experts.moe(y, i, ffn)
    if not ffn.shared_intermediate:
        return routed
    shared = _mlp(ops, f"layers.{i}.shared_", ffn.shared, y)
    if ffn.shared_gate:
        shared = experts.weigh(y, shared, f"layers.{i}.shared_router")
    return ops.add(routed, shared)


def _mlp(ops: Ops[T], at: str, mlp: MLP, y: T) -> T:
    names = (f"{at}gate", f"{at}up") if mlp.gated else (f"{at}up",)
    return ops.linear(ops.activate(ops.linear(y, names), mlp), (f"{at}down",))


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
