"""ModelSpec: what an architecture is, as numbers. Never loads a weight.

A model is a list of layers; a layer is a *mixer* (how tokens look at each other) and a *feed-forward*.
Per-layer description is what lets sliding windows, NoPE layers, leading dense layers of a MoE and
hybrids be plain data rather than special cases.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from edgeq.errors import EdgeqError

RopeKind = Literal["default", "linear", "dynamic", "yarn", "longrope", "llama3"]
QkNorm = Literal["none", "head", "full"]  # per head (Qwen3, Gemma 3) or over the whole projection (OLMo 2)
NormLayout = Literal["pre", "post", "sandwich"]  # Llama; OLMo 2; Gemma 2/3
Activation = Literal["silu", "gelu", "gelu_tanh", "relu2"]
Routing = Literal["top", "all", "sigmoid"]


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary position embedding. `params` holds the numbers of a scaled kind under their config names."""

    theta: float
    dim: int  # rotated dimensions of a head; less than head_dim for a partial rotary factor
    kind: RopeKind = "default"
    params: tuple[tuple[str, float | tuple[float, ...]], ...] = ()
    original_max_positions: int | None = None

    def param(self, name: str, default: float) -> float:
        value = dict(self.params).get(name, default)
        if isinstance(value, tuple):
            raise TypeError(f"rope parameter {name} is a list")
        return value

    def factors(self, name: str) -> tuple[float, ...]:
        value = dict(self.params)[name]
        return value if isinstance(value, tuple) else (value,)


@dataclass(frozen=True, slots=True)
class Attention:
    """Softmax attention: MHA, GQA or MQA. `window` is the sliding window in tokens (None: all)."""

    heads: int
    kv_heads: int
    head_dim: int
    scale: float  # multiplies q.k; 1/sqrt(head_dim) unless the model says otherwise
    rope: Rope | None = None  # None: no position encoding in this layer (NoPE)
    window: int | None = None
    softcap: float | None = None
    qk_norm: QkNorm = "none"
    qkv_bias: bool = False
    o_bias: bool = False
    sinks: bool = False  # gpt-oss: one learned logit per head
    gated: bool = False  # Qwen3-Next: q_proj also produces an output gate of the same width


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2/V3): the cache holds one compressed vector per token."""

    heads: int
    kv_lora_rank: int
    q_lora_rank: int | None
    qk_nope_dim: int
    qk_rope_dim: int
    v_dim: int
    scale: float
    rope: Rope
    bias: bool = False  # on the down projections and the output


@dataclass(frozen=True, slots=True)
class GatedDelta:
    """Gated delta rule linear attention (Qwen3-Next, Qwen3.5): a constant-size state per sequence."""

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    conv_kernel: int


@dataclass(frozen=True, slots=True)
class Mamba:
    """Mamba selective state space: version 1 (`dt_rank`) or 2 (`heads`, `groups`)."""

    version: Literal[1, 2]
    d_inner: int
    d_state: int
    conv_kernel: int
    groups: int = 1
    heads: int = 0
    dt_rank: int = 0
    bias: bool = False  # on the input and output projections
    conv_bias: bool = True


@dataclass(frozen=True, slots=True)
class MLP:
    """Gated feed-forward `down(act(gate(x)) * up(x))`; `gated=False` drops the gate."""

    intermediate: int
    activation: Activation = "silu"
    bias: bool = False
    gated: bool = True


@dataclass(frozen=True, slots=True)
class MoE:
    """Mixture of experts: each token goes through the `active` ones with the largest router logits.

    Attributes:
        intermediate: one expert's width; `shared_intermediate` all shared experts' together.
        shared_gate: the shared experts' output is multiplied by the sigmoid of a logit of its own.
        routing: how the logits become weights: `top`, the softmax of the chosen ones; `all`, the softmax of all of
            them, which for the chosen ones adds up to less than one; `sigmoid` (DeepSeek-V3, with groups and a bias).
        limit: gate and up are held within it, and an expert's activation is `(up + 1) * gate * sigmoid(alpha * gate)`
            (gpt-oss); None: `act(gate) * up`.
    """

    experts: int
    active: int
    intermediate: int
    shared_intermediate: int = 0
    shared_gate: bool = False
    activation: Activation = "silu"
    router_bias: bool = False
    expert_bias: bool = False
    routing: Routing = "top"
    limit: float | None = None
    alpha: float = 1.702

    @property
    def shared(self) -> MLP:
        """The shared experts, which are one MLP."""
        return MLP(self.shared_intermediate, self.activation)


Mixer = Attention | LatentAttention | GatedDelta | Mamba
FeedForward = MLP | MoE


@dataclass(frozen=True, slots=True)
class Layer:
    mixer: Mixer
    ffn: FeedForward | None = None  # None: the mixer is the whole layer (Mamba stacks)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """An architecture.

    Attributes:
        name: what the user typed or the model calls itself.
        family: the Hugging Face `model_type` (`llama`, `qwen3`, `gemma3_text`, ...).
        origin: `class` (size class), `hub`, `folder` or `gguf`; `location` is its path or id.
        estimated: why this is an estimate, not a reading, and what follows from it; empty when exact.
        norm_offset: 1.0 where the stored RMSNorm weight is an offset from one (Gemma), else 0.0.
        embed_scale, residual_scale: multiply the embedding, and each branch before it is added (Granite).
        logit_scale: multiplies the logits (Granite: 1 / logits_scaling).
        source_dtype: dtype of the stored weights (`bf16`, `f16`, `f32`, a GGUF type name, ...).
    """

    name: str
    family: str
    hidden_size: int
    vocab_size: int
    layers: tuple[Layer, ...]
    tied: bool
    max_positions: int
    norm_eps: float = 1e-5
    norm_layout: NormLayout = "pre"
    norm_offset: float = 0.0
    embed_scale: float = 1.0
    residual_scale: float = 1.0
    logit_scale: float = 1.0
    logit_softcap: float | None = None
    head_bias: bool = False
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()
    pad_id: int | None = None
    origin: Literal["class", "hub", "folder", "gguf"] = "class"
    location: str | None = None
    source_dtype: str = "bf16"
    source: str = ""  # for a size class: where its numbers come from
    estimated: tuple[str, ...] = field(default=())

    def __hash__(self) -> int:
        """Cheap: specs key the caches of every estimate; walking all layers each time would cost more than they do."""
        return hash((self.name, self.family, self.hidden_size, self.vocab_size, len(self.layers), self.tied))

    @property
    def n_layers(self) -> int:
        return len(self.layers)

    @property
    def dense(self) -> bool:
        """Every layer is softmax attention and an MLP, without experts."""
        return all(isinstance(x.mixer, Attention) and isinstance(x.ffn, MLP) for x in self.layers)

    @property
    def softmax(self) -> bool:
        """Every layer is softmax attention and an MLP or experts that a softmax weighs: what the decoder can run."""
        routed = (not isinstance(x.ffn, MoE) or x.ffn.routing != "sigmoid" for x in self.layers)
        return all(routed) and all(
            isinstance(x.mixer, Attention) and not x.mixer.gated and x.ffn is not None for x in self.layers
        )


PLAN_ONLY = "edgeq can plan it, but not quantize or run it"  # follows in `estimated` what is guessed


def refuse_estimate(spec: ModelSpec) -> None:
    """Keep what is only guessed from being computed: a check against the same guess would call it right.

    Raises:
        EdgeqError: `spec` is an estimate.
    """
    if spec.estimated:
        raise EdgeqError(
            f"edgeq can plan this model but not quantize or run it: {spec.estimated[0]}",
            where=spec.location or spec.name,
            hint="Take a model of an architecture that edgeq knows, such as Llama, Qwen, Gemma, Mistral or Phi",
        )
