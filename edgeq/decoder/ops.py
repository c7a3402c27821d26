"""The coarse operations a decoder is made of, generic in what stands for a tensor.

The torch backend computes with arrays; an exporter's backend emits graph nodes and passes value names around.
Both implement this protocol, and `edgeq.decoder.decoder` is written once over it.
"""

from __future__ import annotations

from typing import Literal, Protocol, TypeVar

from edgeq.model.spec import MLP, Attention, MoE

T = TypeVar("T")

# What not every backend has: the operations of `ExpertOps`, and attention that honours `Attention.sinks`.
Ability = Literal["experts", "sinks"]
NONE: frozenset[Ability] = frozenset()


class Ops(Protocol[T]):
    """Operations on activations of shape (batch, tokens, width). Weights are asked for by canonical name.

    A backend that has more than dense models need says so in `able`, an attribute `frozenset[Ability]`.
    """

    def embed(self, ids: T) -> T:
        """Rows of the tensor `embed`: integer (batch, tokens) -> (batch, tokens, hidden)."""
        ...

    def scale(self, x: T, factor: float) -> T:
        """`x * factor`."""
        ...

    def add(self, x: T, y: T) -> T: ...

    def norm(self, x: T, name: str) -> T:
        """Root-mean-square norm over the last axis with the weight `name` (plus `ModelSpec.norm_offset`)."""
        ...

    def add_norm(self, x: T, delta: T, name: str) -> tuple[T, T]:
        """`(norm(x + delta), x + delta)`: the norm and the new residual stream, which most runtimes fuse."""
        ...

    def linear(self, x: T, names: tuple[str, ...]) -> T:
        """`x @ concat(weights).T + concat(biases)`: the outputs of `names` side by side on the last axis.

        Matrices that share an input are asked for together, so that a backend may pack them into one. A weight's
        bias is `name + "_bias"`, present where `edgeq.model.tensors` lists it.
        """
        ...

    def attention(self, qkv: T, layer: int, spec: Attention) -> T:
        """Causal softmax attention of the packed projections, with the layer's key/value cache.

        `qkv` is (batch, tokens, (heads + 2 * kv_heads) * head_dim). Applies what `spec` says: query/key norm,
        rotary embedding, window, softcap, scale, sinks. Returns (batch, tokens, heads * head_dim).
        """
        ...

    def activate(self, x: T, spec: MLP) -> T:
        """`act(gate) * up` of the packed (gate, up), or `act(up)` when the MLP has no gate."""
        ...

    def logits(self, x: T, scale: float, softcap: float | None) -> T:
        """`softcap * tanh(scale * (x @ head.T + bias) / softcap)`: (batch, tokens, vocab), in float32."""
        ...


class ExpertOps(Ops[T], Protocol):
    """What a backend has that is able to run `experts`."""

    def moe(self, x: T, layer: int, spec: MoE) -> T:
        """What the routed experts of the layer give, each token's by the weights of its router.

        Weights: `router` (experts, hidden), `experts_gate`, `experts_up`, `experts_down` (experts, out, in), their
        biases with `_bias`. See `MoE` for how logits become weights, and for the activation.
        """
        ...

    def weigh(self, x: T, y: T, name: str) -> T:
        """`y * sigmoid(x @ weight.T)`, the weight (1, hidden): the gate of shared experts."""
        ...
