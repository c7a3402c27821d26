"""Where a scale a channel folds into a block without changing what it computes.

A linear layer reads x; `W x = (W diag(s)) (diag(1/s) x)`. The division folds into whatever made x, if that is linear
in each channel: the weight of a norm, the rows of the value projection (attention mixes tokens, not channels) or of
a gated MLP's up projection (the gate multiplies channel by channel). SmoothQuant (arXiv 2211.10438) and AWQ (arXiv
2306.00978) differ only in the s they choose.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from edgeq.model.spec import MLP, Attention, ModelSpec, MoE
from edgeq.quantize.block import Block
from edgeq.quantize.experts import expert_groups, router

Tensor = torch.Tensor


@dataclass(frozen=True, slots=True)
class FoldPoint:
    """One such place.

    Attributes:
        name: `qkv`, `o`, `mlp` or `down`; of experts `mlp` for all of them and the router, `down` for each.
        sources: tensors that take the division: one norm weight, or a matrix (its rows) and its bias.
        targets: matrices whose columns take the scale; together they are all that reads the channels.
        channels: scales there are.
        run, repeat: a run of `run` channels (a head's) stands `repeat` times in a row in the targets' columns
            (a key/value head serves several query heads).
        norm: the source is a norm's weight.
        read: the group whose input the targets read, where they are several; empty: the group that they are.
    """

    name: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    channels: int
    run: int
    repeat: int = 1
    norm: bool = False
    read: tuple[str, ...] = ()

    def spread(self, per_channel: Tensor) -> Tensor:
        """(channels,) -> (columns of the targets,)."""
        return per_channel.reshape(-1, 1, self.run).expand(-1, self.repeat, -1).reshape(-1)

    def gather(self, per_column: Tensor) -> Tensor:
        """(..., columns of the targets) -> (..., channels, repeat): the columns that share a channel."""
        lead = per_column.shape[:-1]
        heads = per_column.reshape(*lead, -1, self.repeat, self.run).transpose(-1, -2)
        return heads.reshape(*lead, self.channels, self.repeat)


def fold_points(spec: ModelSpec, i: int) -> tuple[FoldPoint, ...]:
    """The places of layer `i`, in the order they run; none for mixers and feed-forwards without such a place."""
    layer, at, found = spec.layers[i], f"layers.{i}.", []
    before = spec.norm_layout != "post"  # the branch reads a norm rather than the residual stream itself
    if isinstance(layer.mixer, Attention):
        found += _attention(layer.mixer, at, spec.hidden_size if before else 0)
    if isinstance(layer.ffn, MLP):
        found += _mlp(layer.ffn, at, spec.hidden_size if before else 0)
    elif isinstance(layer.ffn, MoE):
        found += _experts(layer.ffn, i, spec.hidden_size if before else 0)
    return tuple(found)


def apply(block: Block, point: FoldPoint, scale: Tensor) -> None:
    """Change `block.current` by `scale`, float32 (channels,), positive: the targets' columns are multiplied by it.

    Raises:
        ValueError: a scale that is not finite and positive, or of another shape.
    """
    if scale.shape != (point.channels,) or not bool((scale.isfinite() & (scale > 0)).all()):
        raise ValueError(f"a scale of shape {tuple(scale.shape)} for {point.channels} channels of {point.targets}")
    columns = point.spread(scale)
    for name in point.targets:
        block.current[name] = block.current[name] * columns
    for name in point.sources:
        tensor = block.current[name]
        if point.norm:
            offset = block.spec.norm_offset
            block.current[name] = (tensor + offset) / scale - offset
        else:
            block.current[name] = tensor / (scale[:, None] if tensor.ndim == 2 else scale)


def group_of(block: Block, point: FoldPoint) -> tuple[str, ...]:
    """The group that reads what the targets do."""
    if point.read:
        return point.read
    return next(g for g in block.groups if set(g) >= set(point.targets))


def _attention(a: Attention, at: str, hidden: int) -> list[FoldPoint]:
    found = []
    if hidden:
        found.append(FoldPoint("qkv", (f"{at}attn_norm",), (f"{at}q", f"{at}k", f"{at}v"), hidden, hidden, norm=True))
    values = (f"{at}v", f"{at}v_bias") if a.qkv_bias else (f"{at}v",)
    width = a.kv_heads * a.head_dim
    found.append(FoldPoint("o", values, (f"{at}o",), width, a.head_dim, a.heads // a.kv_heads))
    return found


def _mlp(mlp: MLP, at: str, hidden: int) -> list[FoldPoint]:
    found = []
    if hidden:
        names = (f"{at}gate", f"{at}up") if mlp.gated else (f"{at}up",)
        found.append(FoldPoint("mlp", (f"{at}mlp_norm",), names, hidden, hidden, norm=True))
    if mlp.gated:
        up = (f"{at}up", f"{at}up_bias") if mlp.bias else (f"{at}up",)
        found.append(FoldPoint("down", up, (f"{at}down",), mlp.intermediate, mlp.intermediate))
    return found


def _experts(moe: MoE, i: int, hidden: int) -> list[FoldPoint]:
    """All experts, the shared ones and the routers read one norm; a scale of it has to be all of theirs."""
    at = f"layers.{i}."
    found, groups = [], expert_groups(i, moe)
    both, down = groups[: moe.experts], groups[moe.experts :]
    if hidden:
        shared = (f"{at}shared_gate", f"{at}shared_up") if moe.shared_intermediate else ()
        routers = (f"{at}router", f"{at}shared_router") if moe.shared_gate else (f"{at}router",)
        names = (*routers, *shared, *(n for g in both for n in g))
        found.append(FoldPoint("mlp", (f"{at}mlp_norm",), names, hidden, hidden, norm=True, read=router(i)))
    if moe.limit is None:  # a clamped up projection is not linear
        for (_, up), targets in zip(both, down, strict=True):
            stem, _, e = up.rpartition(".")
            sources = (up, f"{stem}_bias.{e}") if moe.expert_bias else (up,)
            found.append(FoldPoint("down", sources, targets, moe.intermediate, moe.intermediate))
    if moe.shared_intermediate:
        width = moe.shared_intermediate
        found.append(FoldPoint("down", (f"{at}shared_up",), (f"{at}shared_down",), width, width))
    return found
