"""Expected speed from what the runtime's kernels were measured to do on this very device.

A decoding step of the exported graph is a sum of known parts, each timed alone by the runtime's probe
(`edgeq/runtimes/onnxruntime/probe.py` says what every rate means):

    seconds = sum over matrices of weights * seconds per weight
            + sum over layers (what a block costs beside its weights + 2 * heads * head_dim * cached tokens / rate)
            + the loop around the graph

OpenVINO and llama.cpp are timed on whole models instead: `edgeq.estimate.whole`.

Measured rates hold both limits of the roofline, the memory's and the kernel's arithmetic, so no share of a ceiling is
guessed. Where nothing was measured the prior share of the ceiling stands in (`edgeq.estimate.prior`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from edgeq.device.spec import Device
from edgeq.estimate import whole
from edgeq.estimate.ceiling import ceiling, prefill_flop
from edgeq.estimate.onnx_file import block_size
from edgeq.estimate.onnx_grids import on_kernels
from edgeq.estimate.parts import Parts
from edgeq.estimate.prior import Basis, Expected, prior_decode
from edgeq.model.spec import MLP, Attention, Layer, ModelSpec
from edgeq.scheme import Grid, Scheme

BASIS: Basis = "kernels measured here"
_WHOLE = "timed in small models"
_BASE = "MatMulNBits-4-g32"
_NEEDED = (
    _BASE,
    "MatMulNBits-4-g128",
    "MatMulNBits-8-g32",
    "MatMul-f32",
    "GroupQueryAttention",
    "glue",
    "layer",
    "step",
)
# The block that `layer` was measured on: its nodes and the values they write (`runtimes/onnxruntime/tiny_block.py`).
_LAYER_NODES = 10
_LAYER_VALUES = 2 * 512 + 4 * 1536
_CACHE_SHARE = 0.5  # of the last cache that weights may fill and still be there at the next token
_CHUNK = 128  # prompt tokens a run of the graph takes in edgeq's session
# Seconds around the graph for each token, measured with edgeq's session: generator, bindings, detokenizer; and for
# each logit: the copy that numpy's argmax scans.
_LOOP, _LOOP_LOGIT = 40e-6, 1.2e-10
# A graph in steady work against the best runs of its kernels: median steps took 1.05 to 1.2 times as long.
_STEADY = 1.1


def expected_decode(
    device: Device, spec: ModelSpec, scheme: Scheme, target: str, *, context: int = 512, threads: int | None = None
) -> Expected | None:
    """Expected tokens/s of one sequence with `context` tokens in the cache.

    Args:
        threads: of the session, when fewer than the physical cores that were measured: the rates scale with them.

    Returns:
        None when neither kernels nor the memory's read bandwidth are known.
    """
    parts = decode_parts(device, spec, scheme, target, context=context, threads=threads)
    if parts is not None:
        return Expected(1 / parts.total, BASIS, parts.words())
    bound = ceiling(device, spec, scheme, target, max(1, context)).decode_tps
    return prior_decode(spec, scheme, target, bound) if bound else None


def expected_prefill(
    device: Device, spec: ModelSpec, scheme: Scheme, target: str, *, prompt: int = 512, threads: int | None = None
) -> Expected | None:
    """Expected prompt tokens/s for a prompt of `prompt` tokens, the head computed once.

    From whole models that were timed here, or the matrix kernel's measured rate at 64 tokens; without them half the
    arithmetic ceiling; None when that is unknown too.
    """
    rates = _rates(device, target)
    if whole.describes(spec, scheme, rates):
        seconds = whole.prefill_seconds(spec, scheme, rates, prompt=prompt) / _scale(device, threads)
        return Expected(prompt / seconds, BASIS, f"{_WHOLE}: {1000 * seconds:.0f} ms for {prompt} tokens")
    rate = rates.get(f"{_BASE}-prefill")
    if rate is not None and _fits(spec, on_kernels(scheme), rates):
        seconds = prefill_flop(spec, prompt) / (rate * _scale(device, threads))
        seconds += math.ceil(prompt / _CHUNK) * sum(_block(spec, layer, rates) for layer in spec.layers)
        return Expected(prompt / (_STEADY * seconds), BASIS, f"{rate / 1e9:.0f} GFLOP/s at 64 tokens")
    bound = ceiling(device, spec, scheme, target, max(1, prompt), prompt=max(1, prompt)).prefill_tps
    return Expected(bound / 2, "prior", "half of the arithmetic ceiling") if bound else None


def decode_parts(
    device: Device, spec: ModelSpec, scheme: Scheme, target: str, *, context: int = 512, threads: int | None = None
) -> Parts | None:
    """Where a decoding step's time goes; None when this device's kernels were not measured or the graph has others."""
    rates = _rates(device, target)
    if whole.describes(spec, scheme, rates):
        return whole.decode_parts(spec, scheme, rates, context=context).slowed(1 / _scale(device, threads))
    scheme = on_kernels(scheme)
    if not _fits(spec, scheme, rates):
        return None
    slower = _STEADY / _scale(device, threads)
    cached = _in_cache(device, spec, scheme)
    linear = _seconds_per_weight(rates, scheme.linear, cached)
    head = _seconds_per_weight(rates, scheme.head or scheme.embed, cached)
    around = rates["step"] + _LOOP + spec.vocab_size * _LOOP_LOGIT
    return Parts(
        matrices=slower * sum(_matrices(spec)) * linear,
        head=slower * spec.vocab_size * spec.hidden_size * head,
        attention=slower * sum(_attention(layer.mixer, rates, context) for layer in spec.layers),
        glue=_STEADY * sum(_block(spec, layer, rates) for layer in spec.layers),
        loop=_STEADY * around,
    )


def _rates(device: Device, target: str) -> dict[str, float]:
    """The usable figures: a probe that went wrong (0, infinite, not a number) counts as not measured."""
    figures = {k.kernel: k.figure.value for k in device.kernels if k.target == target}
    return {name: value for name, value in figures.items() if math.isfinite(value) and value > 0}


def _fits(spec: ModelSpec, scheme: Scheme, rates: dict[str, float]) -> bool:
    """Whether these rates describe the exported graph: dense, one token at a time, kernels that were measured."""
    if any(name not in rates for name in _NEEDED) or not spec.dense or scheme.act_bits < 16:
        return False
    grids = (scheme.linear, scheme.head or scheme.embed)
    return all(g.kind == "float" or (g.kind == "int" and g.bits in (2, 4, 8)) for g in grids)


def _seconds_per_weight(rates: dict[str, float], grid: Grid, cached: bool) -> float:
    """Time falls linearly with the number of scales a weight has: a line through two measured group sizes. Eight bits
    are measured at one size and take the same slope; two bits take no longer than four."""
    if grid.kind == "float":
        return 1 / rates["MatMul-f32"]
    at_32, at_128 = 1 / rates[_BASE], 1 / rates["MatMulNBits-4-g128"]
    slope = max(0.0, at_32 - at_128) / (1 / 32 - 1 / 128)
    group = block_size(grid)
    base = 1 / rates["MatMulNBits-8-g32"] if grid.bits == 8 else at_32
    seconds = max(base + slope * (1 / group - 1 / 32), 0.25 * base)
    hot = rates.get(f"{_BASE}-cached", 0.0)
    return seconds * min(1.0, rates[_BASE] / hot) if cached and hot else seconds


def _matrices(spec: ModelSpec) -> Iterator[int]:
    """Weights of each matrix node of the exported graph: q, k and v are one, gate and up are one."""
    for layer in spec.layers:
        mixer, ffn = layer.mixer, layer.ffn
        if isinstance(mixer, Attention):
            q, kv = mixer.heads * mixer.head_dim, mixer.kv_heads * mixer.head_dim
            yield spec.hidden_size * (q + 2 * kv)
            yield spec.hidden_size * q
        if isinstance(ffn, MLP):
            yield spec.hidden_size * ffn.intermediate * (2 if ffn.gated else 1)
            yield spec.hidden_size * ffn.intermediate


def _attention(mixer: object, rates: dict[str, float], context: int) -> float:
    if not isinstance(mixer, Attention):
        return 0.0
    return 2 * mixer.heads * mixer.head_dim * min(context, mixer.window or context) / rates["GroupQueryAttention"]


def _block(spec: ModelSpec, layer: Layer, rates: dict[str, float]) -> float:
    """Seconds of one block beside weights and cached tokens: the measured one's, more where there are more nodes
    (sandwich norms; normalized queries and keys: split, four reshapes, two norms) or wider ones."""
    nodes, values = _LAYER_NODES, 2 * spec.hidden_size
    if spec.norm_layout == "sandwich":
        nodes, values = nodes + 2, 2 * values
    if isinstance(layer.ffn, MLP):
        values += 4 * layer.ffn.intermediate
    if isinstance(layer.mixer, Attention) and layer.mixer.qk_norm != "none":
        nodes += 7
        values += 2 * (layer.mixer.heads + 2 * layer.mixer.kv_heads) * layer.mixer.head_dim
    start = rates["layer"] * nodes / _LAYER_NODES
    return max(start + (values - _LAYER_VALUES) / rates["glue"], 0.2 * start)


def _in_cache(device: Device, spec: ModelSpec, scheme: Scheme) -> bool:
    """Whether all weights of a step stay in the last cache between tokens. Prepacked weights weigh bits/8 + 8/group
    bytes: `edgeq.estimate.runtime`."""
    last = max((c.size_bytes for c in device.cpu.caches), default=0)
    weights = sum(_matrices(spec)) + spec.vocab_size * spec.hidden_size
    return weights * scheme.linear.bits / 8 <= _CACHE_SHARE * last


def _scale(device: Device, threads: int | None) -> float:
    """Share of the measured rates that fewer threads reach: that of the bandwidth where it is known by threads."""
    cores = max(1, device.cpu.cores)
    if threads is None or threads >= cores:
        return 1.0
    known = dict(device.memory.bandwidth_by_threads)
    if known.get(threads) and known.get(cores):
        return min(1.0, known[threads] / known[cores])
    return threads / cores
