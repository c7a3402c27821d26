"""Ceiling: the speed that bytes and arithmetic allow (the roofline of Williams, Waterman and Patterson, 2009).

Decoding reads every weight it uses and the cache once a token: tokens/s <= read bandwidth / bytes. Reading a prompt
multiplies: tokens/s <= matrix rate / operations. What is unknown stays None, with a reason, and never becomes 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from edgeq.device.spec import Device, Figure
from edgeq.estimate.formats import alike, runtime_of, stored_tensors
from edgeq.estimate.kv import kv_read_bytes
from edgeq.estimate.pool import pool
from edgeq.model.spec import Attention, LatentAttention, ModelSpec, MoE
from edgeq.model.tensors import TensorSpec
from edgeq.scheme import Scheme


@dataclass(frozen=True, slots=True)
class Ceiling:
    """Upper bounds of speed.

    Attributes:
        decode_tps: tokens/s of all sequences together with the whole context filled.
        decode_tps_empty: the same just after a short prompt, with next to nothing in the cache.
        prefill_tps: prompt tokens/s, `prompt` tokens long.
        ttft_s: least time to the first token of that prompt.
        weight_bytes_read, kv_bytes_read: for one decoding step.
        bandwidth, matmul: the figures used, None when unknown.
        missing: why a figure is None.
    """

    decode_tps: float | None
    decode_tps_empty: float | None
    prefill_tps: float | None
    ttft_s: float | None
    weight_bytes_read: int
    kv_bytes_read: int
    bandwidth: Figure | None
    matmul: Figure | None
    prompt: int
    missing: tuple[str, ...] = ()


def decode_bound(bandwidth: float, bytes_read: float) -> float:
    """Tokens/s when each token reads `bytes_read` at `bandwidth` bytes/s."""
    return bandwidth / bytes_read


@lru_cache(maxsize=1024)
def weight_bytes_read(spec: ModelSpec, scheme: Scheme, target: str | None = None, batch: int = 1) -> int:
    """Weight bytes that one decoding step of `batch` sequences reads.

    Of an untied embedding table one row a sequence; a tied one whole, as the head. Of the experts those that the
    batch uses: E * (1 - (1 - active / E)^batch) expected, which for one sequence is the active ones.
    """
    total = 0.0
    for stored in stored_tensors(spec, scheme, runtime_of(target)):
        if stored.spec.role == "embed" and not spec.tied:
            total += batch * stored.n_bytes / spec.vocab_size
        else:
            total += stored.n_bytes * _used(spec, stored.spec, batch)
    return int(total)


def _used(spec: ModelSpec, t: TensorSpec, batch: int) -> float:
    ffn = spec.layers[t.layer].ffn if t.layer is not None else None
    if not t.expert or not isinstance(ffn, MoE):
        return 1.0
    return float(1 - (1 - ffn.active / ffn.experts) ** batch)


@lru_cache(maxsize=256)
def prefill_flop(spec: ModelSpec, prompt: int) -> float:
    """Operations to read a prompt: 2 a weight and token (the embedding looked up, the head once), and for causal
    attention 2 * 2 * heads * head_dim for each of the tokens seen before (Kaplan et al. 2020, arXiv 2001.08361)."""
    total = 2.0 * spec.hidden_size * spec.vocab_size
    for t, count in alike(spec):
        if t.linear and t.role != "head":
            total += 2.0 * count * t.numel * _used(spec, t, 1) * prompt
    return total + sum(_attention_flop(x.mixer, prompt) for x in spec.layers)


@lru_cache(maxsize=256)
def decode_flop(spec: ModelSpec, context: int) -> float:
    """Operations for one token of one sequence with `context` tokens in the cache: 2 a weight used, and attention."""
    total = 2.0 * spec.hidden_size * spec.vocab_size
    for t, count in alike(spec):
        if t.linear and t.role != "head":
            total += 2.0 * count * t.numel * _used(spec, t, 1)
    return total + sum(_token_attention_flop(x.mixer, context) for x in spec.layers)


def _token_attention_flop(mixer: object, context: int) -> float:
    if isinstance(mixer, Attention):
        return 4.0 * mixer.heads * mixer.head_dim * min(context, mixer.window or context)
    if isinstance(mixer, LatentAttention):
        return 2.0 * mixer.heads * (mixer.qk_nope_dim + mixer.qk_rope_dim + mixer.v_dim) * context
    return 0.0


def _attention_flop(mixer: object, prompt: int) -> float:
    if isinstance(mixer, Attention):
        window = min(prompt, mixer.window or prompt)
        seen = prompt * window - window * window / 2  # tokens seen, summed over the prompt
        return 4.0 * mixer.heads * mixer.head_dim * seen
    if isinstance(mixer, LatentAttention):
        return 2.0 * mixer.heads * (mixer.qk_nope_dim + mixer.qk_rope_dim + mixer.v_dim) * prompt * prompt / 2
    return 0.0


def ceiling(
    device: Device,
    spec: ModelSpec,
    scheme: Scheme,
    target: str,
    context: int,
    batch: int = 1,
    kv_dtype: str = "f16",
    prompt: int = 512,
) -> Ceiling:
    """The bounds of `scheme` on `target`'s memory of `device`."""
    prompt = max(1, min(prompt, context))
    weights = weight_bytes_read(spec, scheme, target, batch)
    cache = batch * kv_read_bytes(spec, context, kv_dtype=kv_dtype, target=target)
    least = batch * kv_read_bytes(spec, 1, kv_dtype=kv_dtype, target=target)
    memory = pool(device, target)
    bandwidth = _known(memory.bandwidth if memory else None)
    rates = (memory.matmul if scheme.act_bits <= 8 or target.endswith("/cpu") else memory.floating) if memory else None
    matmul = _known(rates)
    decode = batch * decode_bound(bandwidth.value, weights + cache) if bandwidth else None
    empty = batch * decode_bound(bandwidth.value, weights + least) if bandwidth else None
    seconds = prefill_flop(spec, prompt) / matmul.value if matmul else None
    first = seconds + batch / empty if seconds is not None and empty else None
    return Ceiling(
        decode,
        empty,
        prompt / seconds if seconds else None,
        first,
        weights,
        cache,
        bandwidth,
        matmul,
        prompt,
        _missing(target, memory is not None, bandwidth, matmul),
    )


def _known(figure: Figure | None) -> Figure | None:
    """A figure that a machine can have; a probe that went wrong (0, infinite, not a number) counts as unknown."""
    return figure if figure is not None and 1 <= figure.value < 1e18 else None


def _missing(target: str, present: bool, bandwidth: Figure | None, matmul: Figure | None) -> tuple[str, ...]:
    if not present:
        return (f"this device has no accelerator for {target}",)
    lacks = []
    if bandwidth is None:
        lacks.append("this memory's read bandwidth is not known, so no tokens/s can be said")
    if matmul is None:
        lacks.append("this processor's matrix rate is not known, so how long a prompt takes can't be said")
    return tuple(lacks)
