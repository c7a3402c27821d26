"""What a model takes and how fast it can go: pure arithmetic, no I/O."""

from edgeq.estimate.ceiling import Ceiling, ceiling, weight_bytes_read
from edgeq.estimate.footprint import Footprint, footprint
from edgeq.estimate.formats import bits_per_weight, weight_bytes
from edgeq.estimate.kv import KV_DTYPES, kv_bytes_per_token, kv_cache_bytes
from edgeq.estimate.needs import Needs, quantization_needs
from edgeq.estimate.pool import Pool, pool

__all__ = [
    "KV_DTYPES",
    "Ceiling",
    "Footprint",
    "Needs",
    "Pool",
    "bits_per_weight",
    "ceiling",
    "footprint",
    "kv_bytes_per_token",
    "kv_cache_bytes",
    "pool",
    "quantization_needs",
    "weight_bytes",
    "weight_bytes_read",
]
