"""Footprint: what running a model takes, part by part."""

from __future__ import annotations

from dataclasses import dataclass

from edgeq.estimate.buffers import activation_bytes, overhead_bytes
from edgeq.estimate.formats import weight_bytes
from edgeq.estimate.kv import kv_cache_bytes
from edgeq.estimate.needs import Needs, quantization_needs
from edgeq.model.spec import ModelSpec
from edgeq.scheme import Scheme


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes. `overhead_basis` says whether the runtime's own share was measured or assumed."""

    weights: int
    kv_cache: int
    activations: int
    overhead: int
    overhead_basis: str
    kv_dtype: str
    quantization: Needs

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.activations + self.overhead


def footprint(
    spec: ModelSpec, scheme: Scheme, target: str, context: int, batch: int = 1, kv_dtype: str = "f16"
) -> Footprint:
    """What `batch` sequences of `context` tokens take on `target`.

    Raises:
        EdgeqError: a context or batch below 1, or an unknown KV dtype.
    """
    overhead, basis = overhead_bytes(spec, scheme, target, context, kv_dtype)
    return Footprint(
        weights=weight_bytes(spec, scheme, target),
        kv_cache=kv_cache_bytes(spec, context, batch=batch, kv_dtype=kv_dtype, target=target),
        activations=activation_bytes(spec, target, context, batch),
        overhead=overhead,
        overhead_basis=basis,
        kv_dtype=kv_dtype,
        quantization=quantization_needs(spec, scheme),
    )
