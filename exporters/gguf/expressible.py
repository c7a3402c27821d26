"""What a GGUF file can't say: llama.cpp builds an architecture's graph in code, and the file only fills in numbers.

A model that differs from its architecture's graph would load and compute something else, so it is refused. The facts
are those of llama.cpp's `src/models/*.cpp` (2026): which biases are loaded, which layers have a window or no rotary
embedding, what multiplies scores and embeddings.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from edgeq.errors import EdgeqError
from edgeq.model.spec import MLP, Activation, Attention, ModelSpec, MoE, NormLayout, QkNorm, Routing


@dataclass(frozen=True, slots=True)
class Graph:
    """An architecture as llama.cpp builds it.

    Attributes:
        name: its name in the file.
        windows: every n-th layer sees all, the others a window; 0: all layers see all.
        no_rope: every n-th layer has no rotary embedding; 0: all have one.
        biases: which biases it adds: `qkv`, `o`, `mlp`, `head`.
        own_width: a head's width need not be the hidden size divided by the heads.
        partial: a part of a head's dimensions may be rotated.
        tied: whether the head may be, has to be or must not be the embedding.
        scaled: embedding, scores, branches and logits are multiplied by numbers of the file.
        gemma: the embedding is multiplied by the root of the hidden size, and the logits may be capped.
        wide_layers: with so many layers scores are scaled by the hidden size per head, not the head's width.
        experts: what weighs its experts, see `MoE.routing`; None: it has an MLP in their place.
        shared: whether there may be, have to be or must not be shared experts.
        sinks: attention has sinks, and experts are clamped, with biases everywhere (gpt-oss).
    """

    name: str
    layout: NormLayout = "pre"
    activation: Activation = "silu"
    qk_norm: QkNorm = "none"
    windows: int = 0
    no_rope: int = 0
    biases: frozenset[str] = frozenset({"qkv"})
    own_width: bool = True
    partial: bool = True
    tied: tuple[bool, ...] = (True, False)
    scaled: bool = False
    gemma: bool = False
    wide_layers: int = 0
    experts: Routing | None = None
    shared: tuple[bool, ...] = (False,)
    sinks: bool = False


_FULL = frozenset({"qkv", "o", "mlp"})
_LLAMA = Graph("llama", biases=_FULL, partial=False)
_GRANITE_MOE = Graph("granitemoe", biases=_FULL, scaled=True, experts="top", shared=(True, False))
_LIMIT, _ALPHA = 7.0, 1.702  # of gpt-oss's clamped activation, in llama.cpp's code
GRAPHS = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": Graph("qwen2", biases=frozenset({"qkv", "head"}), own_width=False),
    "qwen3": Graph("qwen3", qk_norm="head"),
    "gemma2": Graph("gemma2", "sandwich", "gelu_tanh", windows=2, tied=(True,), gemma=True, wide_layers=46),
    "gemma3_text": Graph("gemma3", "sandwich", "gelu_tanh", "head", windows=6, gemma=True, wide_layers=62),
    "phi3": Graph("phi3", own_width=False),
    "smollm3": Graph("smollm3", no_rope=4),
    "olmo2": Graph("olmo2", "post", qk_norm="full", own_width=False, tied=(False,)),
    "granite": Graph("granite", biases=_FULL, scaled=True),
    "mixtral": replace(_LLAMA, experts="top"),
    "qwen2_moe": Graph("qwen2moe", own_width=False, tied=(False,), experts="all", shared=(True,)),
    "qwen3_moe": Graph("qwen3moe", qk_norm="head", experts="top"),
    "olmoe": Graph("olmoe", qk_norm="full", own_width=False, tied=(False,), experts="all"),
    "gpt_oss": Graph("gpt-oss", windows=2, biases=frozenset({"qkv", "o"}), tied=(False,), experts="top", sinks=True),
    "granitemoe": _GRANITE_MOE,
    "granitemoeshared": _GRANITE_MOE,
}


def graph(spec: ModelSpec) -> Graph:
    """The architecture in the file.

    Raises:
        EdgeqError: there is none that edgeq writes.
    """
    if spec.family not in GRAPHS:
        raise EdgeqError(
            f"edgeq writes no GGUF of {spec.family} models", where=spec.name, hint=f"It does of {', '.join(GRAPHS)}"
        )
    return GRAPHS[spec.family]


def check_expressible(spec: ModelSpec, context: int) -> None:
    """Raise an EdgeqError naming the first thing about the model, for sequences of up to `context` tokens, that
    llama.cpp would compute otherwise."""
    known, spec = graph(spec), replace(spec, max_positions=context)
    for layer in spec.layers:
        if not isinstance(layer.mixer, Attention) or not isinstance(layer.ffn, (MLP, MoE)):
            raise EdgeqError("only models of softmax attention are exported to gguf", where=spec.name)
    for what, hint in (*_model(spec, known), *_layers(spec, known)):
        raise EdgeqError(f"llama.cpp's {known.name} can't have {what}", where=spec.name, hint=hint)


def window_of(attention: Attention, spec: ModelSpec) -> int | None:
    """The window where it is one: a window as long as the longest sequence hides nothing."""
    window = attention.window
    return None if window is None or window >= spec.max_positions else window


Found = Iterator[tuple[str, str | None]]


def _model(spec: ModelSpec, known: Graph) -> Found:
    first = spec.layers[0].mixer
    assert isinstance(first, Attention)
    if spec.norm_layout != known.layout:
        yield f"its norms placed as {spec.norm_layout}", None
    if spec.tied not in known.tied:
        yield f"its head {'tied to' if spec.tied else 'apart from'} the embedding", None
    if spec.head_bias and "head" not in known.biases:
        yield "a bias of its head", None
    multiplied = math.sqrt(spec.hidden_size) if known.gemma else 1.0
    if not known.scaled:
        if not math.isclose(spec.embed_scale, multiplied, rel_tol=1e-6):
            yield f"an embedding multiplied by {spec.embed_scale:g}", None
        if (spec.residual_scale, spec.logit_scale) != (1.0, 1.0):
            yield "scaled branches or logits", None
    capped = known.name == "gemma2"
    if (first.softcap is not None) != capped:
        yield f"attention scores {'without' if capped else 'with'} a soft cap", None
    if (spec.logit_softcap is None and capped) or (spec.logit_softcap is not None and not known.gemma):
        yield f"logits {'without' if capped else 'with'} a soft cap", None


def _layers(spec: ModelSpec, known: Graph) -> Found:
    widths = set()
    for i, layer in enumerate(spec.layers):
        attention, ffn = layer.mixer, layer.ffn
        assert isinstance(attention, Attention) and isinstance(ffn, (MLP, MoE))
        widths.add((attention.heads, attention.kv_heads, attention.head_dim, attention.softcap, _sizes(ffn)))
        for what, hint in (*_attention(spec, known, i, attention), *_ffn(known, ffn)):
            yield f"{what} (layer {i})", hint
    if len(widths) > 1:
        yield "layers of different widths", None


def _sizes(ffn: MLP | MoE) -> tuple[int, ...]:
    if isinstance(ffn, MLP):
        return (ffn.intermediate,)
    return (ffn.intermediate, ffn.experts, ffn.active, ffn.shared_intermediate)


def _experts(known: Graph, ffn: MoE) -> Found:
    if known.experts is None:
        yield "experts", None
    elif ffn.routing != known.experts:
        yield f"weights of experts that {'do not ' if known.experts == 'top' else ''}add up to one", None
    if bool(ffn.shared_intermediate) not in known.shared:
        yield f"{'' if ffn.shared_intermediate else 'no '}shared experts", None
    if ffn.shared_intermediate and ffn.shared_gate != (known.experts == "all"):
        yield f"shared experts with{'' if ffn.shared_gate else 'out'} a gate", None
    if ffn.activation != known.activation or (ffn.limit, ffn.alpha) != (_LIMIT if known.sinks else None, _ALPHA):
        yield f"{ffn.activation} experts clamped to {ffn.limit}", None
    if {ffn.router_bias, ffn.expert_bias} != {known.sinks}:
        yield f"experts with{'' if ffn.expert_bias else 'out'} biases", None


def _ffn(known: Graph, ffn: MLP | MoE) -> Found:
    if isinstance(ffn, MoE):
        yield from _experts(known, ffn)
        return
    if known.experts is not None:
        yield "an MLP in place of experts", None
        return
    if ffn.activation != known.activation or not ffn.gated:
        yield f"a {'' if ffn.gated else 'plain '}{ffn.activation} MLP", None
    if ffn.bias and "mlp" not in known.biases:
        yield "biases in its MLP", None


def _attention(spec: ModelSpec, known: Graph, i: int, attention: Attention) -> Found:
    heads, width = attention.heads, attention.head_dim
    if attention.qk_norm != known.qk_norm:
        yield f"norms of queries and keys of kind {attention.qk_norm}", None
    if attention.o_bias and "o" not in known.biases:
        yield "a bias of attention's output", None
    if not known.own_width and heads * width != spec.hidden_size:
        yield f"{heads} heads of {width} in a hidden size of {spec.hidden_size}", None
    if attention.gated or attention.sinks != known.sinks:
        yield f"gated attention, or {'no ' if known.sinks else ''}sinks", None
    if known.sinks and not (attention.qkv_bias and attention.o_bias):
        yield "attention without biases", None
    if known.name == "olmoe" and attention.kv_heads != attention.heads:
        yield "fewer heads of keys than of queries", None
    wide = known.wide_layers == spec.n_layers
    expected = 1.0 / math.sqrt(spec.hidden_size // heads if wide else width)
    if not known.scaled and not math.isclose(attention.scale, expected, rel_tol=1e-6):
        yield f"attention scores multiplied by {attention.scale:g} instead of {expected:g}", None
    yield from _positions(spec, known, i, attention)


def _positions(spec: ModelSpec, known: Graph, i: int, attention: Attention) -> Found:
    window = attention.window if known.windows else window_of(attention, spec)
    if (window is not None) != bool(known.windows and (i + 1) % known.windows):
        hint = None if known.windows else f"Export for sequences within the window: --context {window}"
        yield (f"a window of {window} tokens" if window is not None else "no window"), hint
    if (attention.rope is None) != bool(known.no_rope and (i + 1) % known.no_rope == 0):
        yield "a rotary embedding" if attention.rope is not None else "no rotary embedding", None
    if attention.rope is not None and attention.rope.dim != attention.head_dim and not known.partial:
        yield "a part of its heads rotated", None
