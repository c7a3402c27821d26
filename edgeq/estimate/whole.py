"""Expected speed from whole models that a runtime was timed on here: OpenVINO, llama.cpp.

The rates and their names are told in `edgeq.device.model_probe`. A decoding step is

    sum over matrices of weights / decode-TYPE
    + layers * layer + sum over layers of 2 * heads * head_dim * cached tokens / attention

and a prompt of n tokens

    sum over matrices of weights * (2 n / prefill-TYPE + 1 / chunk-TYPE for each pass)
    + sum over layers of heads * head_dim * n^2 / attention-prefill

Norms and activations grow with the width, matrices with its square, so a narrow model reads prompts more slowly: the
part that `narrow-TYPE` shows is scaled by 1 / width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from edgeq.estimate.formats import alike, scheme_grid
from edgeq.estimate.ggml import BLOCKS, SYMMETRIC, integer_type
from edgeq.estimate.gguf import gguf_tensors
from edgeq.estimate.parts import Parts
from edgeq.model.spec import Attention, ModelSpec
from edgeq.scheme import Grid, Scheme

Rates = Mapping[str, float]
# Widths of the models that the rates are of: `edgeq.device.model_probe.WIDE`, `NARROW`.
_WIDE, _NARROW = 1536, 512
_CHUNK = 512  # prompt tokens of one pass in edgeq's sessions
_NEEDED = ("layer", "attention", "attention-prefill")
_DECODE, _PREFILL, _CHUNKS, _NARROWS = "decode-", "prefill-", "chunk-", "narrow-"
_LOOP_LOGIT = 1.2e-10  # seconds a logit that is scanned for the largest, as in `edgeq.estimate.speed`
_NORM = 0.08  # of `layer`, for each norm beyond two


def describes(spec: ModelSpec, scheme: Scheme, rates: Rates) -> bool:
    """Whether these rates say how fast the model is: dense, softmax attention, every type of matrix near one timed."""
    if any(name not in rates for name in _NEEDED) or not spec.dense or scheme.act_bits < 16:
        return False
    if not all(isinstance(layer.mixer, Attention) for layer in spec.layers):
        return False
    stored = [*_matrices(spec, scheme, rates), _head(spec, scheme, rates)]
    return all(_timed(kind, rates) is not None for kind, _ in stored)


def decode_parts(spec: ModelSpec, scheme: Scheme, rates: Rates, *, context: int) -> Parts:
    """Where a decoding step's seconds go, `context` tokens being cached; for what `describes` is true of."""
    matrices = sum(n * _seconds(_DECODE, kind, rates) for kind, n in _matrices(spec, scheme, rates))
    kind, n = _head(spec, scheme, rates)
    return Parts(
        matrices=matrices,
        head=n * _seconds(_DECODE, kind, rates),
        attention=sum(2 * a.heads * a.head_dim * _seen(a, context) for a in _mixers(spec)) / rates["attention"],
        glue=rates["layer"] * sum(1 + _NORM * _norms(spec, a) for a in _mixers(spec)),
        loop=spec.vocab_size * _LOOP_LOGIT,
    )


def prefill_seconds(spec: ModelSpec, scheme: Scheme, rates: Rates, *, prompt: int) -> float:
    """Seconds to read a prompt of so many tokens, the head computed once; for what `describes` is true of."""
    passes = math.ceil(prompt / _CHUNK)
    narrow = _narrowness(spec, rates)
    total = 0.0
    for kind, n in _matrices(spec, scheme, rates):
        total += 2 * n * prompt * (_seconds(_PREFILL, kind, rates) + narrow)
        total += n * passes * _seconds(_CHUNKS, kind, rates)
    kind, n = _head(spec, scheme, rates)
    total += n * passes * _seconds(_DECODE, kind, rates)
    pairs = sum(2 * a.heads * a.head_dim * _pairs(a, prompt) for a in _mixers(spec))
    return total + pairs / rates["attention-prefill"]


def _narrowness(spec: ModelSpec, rates: Rates) -> float:
    """Seconds that a FLOP of a prompt takes more than in the wide model."""
    more = 0.0
    for name in rates:
        if name.startswith(_NARROWS):
            more = max(0.0, 1 / rates[name] - 1 / rates[_PREFILL + name.removeprefix(_NARROWS)])
    return max(0.0, more * (1 / spec.hidden_size - 1 / _WIDE) / (1 / _NARROW - 1 / _WIDE))


def _mixers(spec: ModelSpec) -> Iterator[Attention]:
    return (layer.mixer for layer in spec.layers if isinstance(layer.mixer, Attention))


def _seen(a: Attention, context: int) -> int:
    return min(context, a.window or context)


def _pairs(a: Attention, prompt: int) -> float:
    """Pairs of a token and one before it that it sees."""
    window = min(prompt, a.window or prompt)
    return prompt * window - window * window / 2


def _norms(spec: ModelSpec, a: Attention) -> int:
    """Norms of a layer beyond the two that were timed."""
    return (2 if spec.norm_layout == "sandwich" else 0) + (0 if a.qk_norm == "none" else 2)


def _matrices(spec: ModelSpec, scheme: Scheme, rates: Rates) -> list[tuple[str, int]]:
    """(type, weights) of the layers' matrices."""
    return [(kind, n) for role, kind, n in _typed(spec, scheme, rates) if role not in ("embed", "head")]


def _head(spec: ModelSpec, scheme: Scheme, rates: Rates) -> tuple[str, int]:
    wanted = "embed" if spec.tied else "head"
    return next((kind, n) for role, kind, n in _typed(spec, scheme, rates) if role == wanted)


def _typed(spec: ModelSpec, scheme: Scheme, rates: Rates) -> Iterator[tuple[str, str, int]]:
    """(role, type, weights) of all matrices, as the runtime stores them."""
    if scheme.gguf_type is not None:
        for tensor in gguf_tensors(spec, scheme.gguf_type):
            if tensor.spec.linear or tensor.spec.role == "embed":
                yield tensor.spec.role, tensor.ggml_type, tensor.spec.numel
        return
    blocks = any(name.removeprefix(_DECODE) in SYMMETRIC.values() for name in rates)
    for t, count in alike(spec):
        grid = scheme_grid(t, scheme)
        if grid is not None:
            yield t.role, type_name(grid, t.shape[-1], blocks=blocks), count * t.numel


def type_name(grid: Grid, columns: int, *, blocks: bool = False) -> str:
    """What the probe calls matrices on this grid: `int4-g32`, `int8-row`, `Q4_K`, `F16`.

    Args:
        blocks: the runtime keeps llama.cpp's block types.
    """
    if grid.ggml_type is not None:
        return grid.ggml_type
    if grid.kind != "int":
        return f"F{grid.bits}" if grid.kind == "float" else grid.codebook or grid.kind
    if blocks and (found := integer_type(grid.bits, symmetric=grid.symmetric)) is not None:
        return found
    return f"int{grid.bits}-row" if grid.group_size == -1 else f"int{grid.bits}-g{math.gcd(grid.group_size, columns)}"


def _seconds(what: str, kind: str, rates: Rates) -> float:
    """Seconds of a weight of this type, or of a FLOP with it.

    Types that were not timed: integers lie on a line through those of as many bits, by their scales a weight; blocks
    of llama.cpp take the nearest type's time, in decoding by the bytes they are.
    """
    if what + kind in rates:
        return 1 / rates[what + kind]
    near = _timed(kind, rates) or ()
    known = [(name, 1 / rates[what + name]) for name in near if what + name in rates]
    if not known:  # nothing is done once for all tokens
        return 0.0
    if kind in BLOCKS:
        name, seconds = known[0]
        return seconds * (_bytes(kind) / _bytes(name) if what == _DECODE else 1.0)
    if len(known) == 1:
        return known[0][1]
    (a, low), (b, high) = ((_scales(name), seconds) for name, seconds in known[:2])
    return max(low + (high - low) * (_scales(kind) - a) / (b - a), min(low, high) / 2)


def _timed(kind: str, rates: Rates) -> tuple[str, ...] | None:
    """The types that were timed and stand for this one, the nearest first; None: nothing is near."""
    names = [name.removeprefix(_DECODE) for name in rates if name.startswith(_DECODE)]
    if kind in names:
        return (kind,)
    if kind in BLOCKS:
        alike = sorted((n for n in names if n in BLOCKS), key=lambda n: abs(math.log(_bytes(n) / _bytes(kind))))
        near = [n for n in alike if 0.6 < _bytes(n) / _bytes(kind) < 1.7]
        return (near[0],) if near else None
    bits = kind.partition("-")[0]
    same = sorted((n for n in names if n.partition("-")[0] == bits), key=lambda n: abs(_scales(n) - _scales(kind)))
    smaller = bool(same) and _scales(kind) > max(map(_scales, same))  # than any group timed: often another kernel
    return tuple(same) if same and bits.startswith("int") and not smaller else None


def _bytes(kind: str) -> float:
    """Of a weight."""
    elements, n_bytes = BLOCKS[kind]
    return n_bytes / elements


def _scales(kind: str) -> float:
    """Of a weight: 1/32 of `int4-g32`, none of `int8-row`."""
    size = kind.partition("-g")[2]
    return 1 / int(size) if size else 0.0
