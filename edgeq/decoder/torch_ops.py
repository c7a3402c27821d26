"""The decoder run by torch: the reference for every artifact, and the engine of calibration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812

from edgeq.checkpoint.weights import Weights, activation_of, dense
from edgeq.decoder import rope as rotary
from edgeq.decoder.fake_quant import fake_quantized
from edgeq.decoder.ops import Ability
from edgeq.model.spec import MLP, Attention, ModelSpec, MoE, Rope
from edgeq.model.tensors import tensors

Tensor = torch.Tensor

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu2": lambda x: F.relu(x).square(),
}


ABLE: frozenset[Ability] = frozenset({"experts", "sinks"})


@dataclass(slots=True)
class KeyValueCache:
    """Keys and values of every layer, each (batch, kv_heads, tokens, head_dim), and the number of tokens seen."""

    length: int = 0
    layers: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        if layer in self.layers:
            past_keys, past_values = self.layers[layer]
            keys, values = torch.cat((past_keys, keys), 2), torch.cat((past_values, values), 2)
        self.layers[layer] = (keys, values)
        return keys, values

    def rewind(self, length: int) -> None:
        """Forget every token from `length` on."""
        self.layers = {i: (k[:, :, :length], v[:, :, :length]) for i, (k, v) in self.layers.items()} if length else {}
        self.length = length


class TorchOps:
    """`edgeq.decoder.ops.Ops` on torch tensors.

    Args:
        weights: where tensors come from; quantized ones are dequantized. Where it has a method `activation(name)`,
            as a checkpoint has, the inputs of linear layers are rounded to the grids it gives.
        dtype: dtype of weights and activations; norms and attention scores are computed in float32.
        keep: hold every weight in memory after its first use; otherwise load each again when it is needed.
        device: where weights go and everything is computed.
    """

    able = ABLE

    def __init__(
        self, weights: Weights, *, dtype: torch.dtype = torch.float32, keep: bool = True, device: str = "cpu"
    ) -> None:
        self.spec: ModelSpec = weights.spec
        self.dtype = dtype
        self.device = device
        self.cache: KeyValueCache | None = None
        self._weights = weights
        self._keep = keep
        self._kept: dict[str, Tensor] = {}
        self._names = frozenset(t.name for t in tensors(weights.spec))
        self._stacked = {t.name: t.shape for t in tensors(weights.spec) if t.expert}
        self._rope: dict[tuple[Rope, int, int], tuple[Tensor, Tensor]] = {}

    @property
    def past(self) -> int:
        """Tokens already in the cache."""
        return self.cache.length if self.cache else 0

    def weight(self, name: str) -> Tensor:
        if name in self._kept:
            return self._kept[name]
        values = np.ascontiguousarray(dense(self._weights.load(name)))
        if name in self._stacked:  # a checkpoint gives quantized experts as one matrix
            values = values.reshape(self._stacked[name])
        loaded = torch.from_numpy(values).to(self.device, self.dtype)
        if self._keep:
            self._kept[name] = loaded
        return loaded

    def embed(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.weight("embed"))

    def scale(self, x: Tensor, factor: float) -> Tensor:
        return x * factor

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y

    def norm(self, x: Tensor, name: str) -> Tensor:
        weight = self.weight(name).float() + self.spec.norm_offset
        wide = x.float()
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.spec.norm_eps)
        return (normed * weight).to(x.dtype)

    def add_norm(self, x: Tensor, delta: Tensor, name: str) -> tuple[Tensor, Tensor]:
        total = x + delta
        return self.norm(total, name), total

    def linear(self, x: Tensor, names: tuple[str, ...]) -> Tensor:
        grid = activation_of(self._weights, names[0])  # matrices that share an input share its grid
        if grid is not None:
            x = fake_quantized(x, grid)
        parts = [F.linear(x, self.weight(n), self._bias(n)) for n in names]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def attention(self, qkv: Tensor, layer: int, spec: Attention) -> Tensor:
        width = spec.kv_heads * spec.head_dim
        q, k, v = qkv[..., : -2 * width], qkv[..., -2 * width : -width], qkv[..., -width:]
        if spec.qk_norm == "full":
            q, k = self.norm(q, f"layers.{layer}.q_norm"), self.norm(k, f"layers.{layer}.k_norm")
        q, k, v = (t.reshape(*t.shape[:2], -1, spec.head_dim).transpose(1, 2) for t in (q, k, v))
        if spec.qk_norm == "head":
            q, k = self.norm(q, f"layers.{layer}.q_norm"), self.norm(k, f"layers.{layer}.k_norm")
        if spec.rope is not None:
            cos, sin = self._tables(spec.rope, q.shape[2])
            q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        if self.cache is not None:
            k, v = self.cache.extend(layer, k, v)
        sinks = self.weight(f"layers.{layer}.sinks") if spec.sinks else None
        out = _attend(q, k, v, spec, self.past, sinks)
        return out.transpose(1, 2).flatten(2)

    def moe(self, x: Tensor, layer: int, spec: MoE) -> Tensor:
        flat = x.flatten(0, -2)
        weights, chosen = self.routing(flat, layer, spec)
        out = torch.zeros_like(flat)
        for e in range(spec.experts):
            token, place = (chosen == e).nonzero(as_tuple=True)
            if len(token):
                y = self.expert(flat[token], layer, e, spec)
                out = out.index_add(0, token, y * weights[token, place, None])
        return out.view(x.shape)

    def routing(self, x: Tensor, layer: int, spec: MoE) -> tuple[Tensor, Tensor]:
        """(weights, experts) of tokens (tokens, hidden): each (tokens, active)."""
        router = f"layers.{layer}.router"
        logits = F.linear(x, self.weight(router), self.weight(f"{router}_bias") if spec.router_bias else None).float()
        largest, chosen = logits.topk(spec.active, -1)
        weights = largest.softmax(-1) if spec.routing == "top" else logits.softmax(-1).gather(1, chosen)
        return weights.to(x.dtype), chosen

    def expert(self, x: Tensor, layer: int, e: int, spec: MoE) -> Tensor:
        """What one expert gives for its tokens (tokens, hidden)."""
        at = f"layers.{layer}.experts_"
        packed = self.expert_linear(x, (f"{at}gate", f"{at}up"), e, spec)
        return self.expert_linear(expert_activation(packed, spec), (f"{at}down",), e, spec)

    def expert_linear(self, x: Tensor, names: tuple[str, ...], e: int, spec: MoE) -> Tensor:
        """`linear` with the matrices of expert `e` in stacked tensors."""
        grid = activation_of(self._weights, names[0])
        if grid is not None:
            x = fake_quantized(x, grid)
        biases = [self.expert_weight(f"{n}_bias", e) if spec.expert_bias else None for n in names]
        parts = [F.linear(x, self.expert_weight(n, e), b) for n, b in zip(names, biases, strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def expert_weight(self, name: str, e: int) -> Tensor:
        """Expert `e` of a stacked tensor."""
        return self.weight(name)[e]

    def weigh(self, x: Tensor, y: Tensor, name: str) -> Tensor:
        return y * torch.sigmoid(F.linear(x, self.weight(name)))

    def activate(self, x: Tensor, spec: MLP) -> Tensor:
        act = _ACTIVATIONS[spec.activation]
        if not spec.gated:
            return act(x)
        gate, up = x.chunk(2, -1)
        return act(gate) * up

    def logits(self, x: Tensor, scale: float, softcap: float | None) -> Tensor:
        weight = self.weight("embed" if self.spec.tied else "head")
        bias = self.weight("head_bias") if self.spec.head_bias else None
        out = F.linear(x, weight, bias).float() * scale
        return out if softcap is None else softcap * torch.tanh(out / softcap)

    def _bias(self, name: str) -> Tensor | None:
        bias = f"{name}_bias"
        return self.weight(bias) if bias in self._names else None

    def _tables(self, rope: Rope, tokens: int) -> tuple[Tensor, Tensor]:
        """Cosine and sine of the positions past..past+tokens, (tokens, dim / 2); layers share them."""
        key = (rope, self.past, tokens)
        if key not in self._rope:
            end = self.past + tokens
            freqs = rotary.frequencies(rope, self.spec.max_positions, end)
            cos, sin = rotary.tables(freqs, np.arange(self.past, end))
            if len(self._rope) > 8:
                self._rope.clear()
            self._rope[key] = (torch.from_numpy(cos).to(self.device), torch.from_numpy(sin).to(self.device))
        return self._rope[key]


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the first 2 * cos.shape[-1] dimensions of each head, first half against second half."""
    half = cos.shape[-1]
    a, b, rest = x[..., :half].float(), x[..., half : 2 * half].float(), x[..., 2 * half :]
    turned = torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(x.dtype)
    return torch.cat((turned, rest), -1) if rest.shape[-1] else turned


def expert_activation(x: Tensor, spec: MoE) -> Tensor:
    """An expert's activation of the packed (gate, up)."""
    gate, up = x.chunk(2, -1)
    if spec.limit is None:
        return _ACTIVATIONS[spec.activation](gate) * up
    gate, up = gate.clamp(max=spec.limit), up.clamp(-spec.limit, spec.limit)
    return (up + 1) * gate * torch.sigmoid(spec.alpha * gate)


def _attend(q: Tensor, k: Tensor, v: Tensor, spec: Attention, past: int, sinks: Tensor | None = None) -> Tensor:
    """Causal attention of q (batch, heads, tokens, dim) over k, v (batch, kv_heads, past + tokens, dim).

    `sinks` (heads,): a logit of each head that takes its share of the softmax and gives nothing.
    """
    if spec.softcap is None and sinks is None:
        plain = past == 0 and spec.window is None  # then torch knows the mask, and skips half of the work
        mask = None if plain else ~_hidden(q.shape[2], past, spec.window, q.device)
        return F.scaled_dot_product_attention(
            q, k, v, mask, is_causal=plain and q.shape[2] > 1, scale=spec.scale, enable_gqa=spec.heads != spec.kv_heads
        )
    group = spec.heads // spec.kv_heads
    out = torch.empty_like(q)
    hidden = _hidden(q.shape[2], past, spec.window, q.device)
    for h in range(spec.kv_heads):  # a group of heads at a time: the score matrix is the largest thing here
        part = slice(h * group, (h + 1) * group)
        scores = (q[:, part] @ k[:, h : h + 1].transpose(2, 3)).float() * spec.scale
        if spec.softcap is not None:
            scores = spec.softcap * torch.tanh(scores / spec.softcap)
        scores = scores.masked_fill(hidden, float("-inf"))
        if sinks is not None:
            sink = sinks[part].float().view(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
            scores = torch.cat((scores, sink), -1)
        weights = scores.softmax(-1)[..., : k.shape[2]].to(v.dtype)
        out[:, part] = weights @ v[:, h : h + 1]
    return out


def _hidden(tokens: int, past: int, window: int | None, device: torch.device) -> Tensor:
    """bool (tokens, past + tokens): the keys a query must not see."""
    queries = torch.arange(past, past + tokens, device=device)[:, None]
    keys = torch.arange(past + tokens, device=device)[None, :]
    hidden = keys > queries
    if window is not None:
        hidden |= queries - keys >= window
    return hidden


def as_ids(ids: npt.ArrayLike) -> Tensor:
    """Token ids as an int64 tensor (1, tokens)."""
    return torch.from_numpy(np.asarray(ids, np.int64).reshape(1, -1))
