"""Part of the layers on the graphics card, the rest on the processor (llama.cpp's `--n-gpu-layers`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeq.device.spec import Device
from edgeq.estimate.ceiling import decode_bound, weight_bytes_read
from edgeq.estimate.footprint import Footprint
from edgeq.estimate.formats import runtime_of
from edgeq.estimate.gguf import gguf_tensors
from edgeq.estimate.kv import kv_cache_bytes, kv_read_bytes
from edgeq.estimate.pool import pool
from edgeq.model.spec import ModelSpec
from edgeq.scheme import Scheme


@dataclass(frozen=True, slots=True)
class Offload:
    """Attributes:
    layers: on the card, of `of` layers.
    gpu_bytes, cpu_bytes: what lies where.
    room: bytes that card and processor hold together.
    decode_tps: ceiling of the mix, None when a bandwidth is unknown.
    """

    layers: int
    of: int
    gpu_bytes: int
    cpu_bytes: int
    room: int
    decode_tps: float | None


def offload(
    device: Device, spec: ModelSpec, scheme: Scheme, target: str, need: Footprint, context: int, batch: int, room: int
) -> Offload | None:
    """The most layers that `room` bytes of the card hold beside buffers; None when not one, or the rest has no place.

    The ceiling is harmonic: a token's time is the card's bytes over its bandwidth plus the processor's over its own.
    """
    card, host = pool(device, target), pool(device, "llamacpp/cpu")
    if (
        scheme.gguf_type is None
        or runtime_of(target) != "llamacpp"
        or card is None
        or host is None
        or not card.dedicated
        or not spec.layers
    ):
        return None
    cache = kv_cache_bytes(spec, context, batch=batch, kv_dtype=need.kv_dtype, target=target) / spec.n_layers
    sizes = _layer_bytes(spec, scheme)
    free, held, layers = room - need.overhead - need.activations, 0.0, 0
    for size in reversed([sizes[i] for i in range(spec.n_layers)]):  # llama.cpp takes the last layers first
        if held + size + cache > free:
            break
        held, layers = held + size + cache, layers + 1
    rest = need.weights + need.kv_cache - int(held)
    if layers == 0 or rest + need.activations > host.capacity:
        return None
    read = weight_bytes_read(spec, scheme, target, batch) + batch * kv_read_bytes(
        spec, context, kv_dtype=need.kv_dtype, target=target
    )
    share = held / (need.weights + need.kv_cache)
    tps = None
    if card.bandwidth is not None and host.bandwidth is not None:
        on_card, on_host = read * share, read * (1 - share)
        tps = batch / (
            1 / decode_bound(card.bandwidth.value, on_card) + 1 / decode_bound(host.bandwidth.value, on_host)
        )
    on_card_bytes = int(held) + need.overhead + need.activations
    return Offload(layers, spec.n_layers, on_card_bytes, rest, room + host.capacity, tps)


def both(device: Device, target: str, limit: int | None = None) -> int | None:
    """Bytes that card and processor hold together, `limit` at most, where layers can be split between them."""
    card, host = pool(device, target), pool(device, "llamacpp/cpu")
    if runtime_of(target) != "llamacpp" or card is None or host is None or not card.dedicated:
        return None
    together = card.capacity + host.capacity
    return together if limit is None else min(together, limit)


def _layer_bytes(spec: ModelSpec, scheme: Scheme) -> Mapping[int, int]:
    sizes = dict.fromkeys(range(spec.n_layers), 0)
    for stored in gguf_tensors(spec, scheme.gguf_type or "Q8_0"):
        if stored.spec.layer is not None:
            sizes[stored.spec.layer] += stored.n_bytes
    return sizes
