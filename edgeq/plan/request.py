"""What the user asks of a plan."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgeq.errors import EdgeqError

OBJECTIVES = ("quality", "speed", "size", "balanced")
SHORT = 256  # tokens in the cache at the start of a chat
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(b|kb|mb|gb|tb|kib|mib|gib|tib|k|m|g|t)?", re.IGNORECASE)
_UNITS = {"": 1, "b": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


@dataclass(frozen=True, slots=True)
class Request:
    """Attributes:
    context: tokens in the cache at most, prompt and answer together.
    batch: sequences at the same time.
    min_tps: tokens/s of one sequence that are enough; None: any.
    max_memory: bytes the model may take; None: what the device has.
    kv_dtype: wanted dtype of the cache; None: each runtime's own.
    targets: only these; empty: all.

    Raises:
        EdgeqError: a value that makes no sense.
    """

    context: int = 8192
    batch: int = 1
    min_tps: float | None = None
    max_memory: int | None = None
    kv_dtype: str | None = None
    objective: str = "balanced"
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.context < 1:
            raise EdgeqError(f"a context of {self.context} tokens", where="--context", hint="Give 1 or more")
        if self.batch < 1:
            raise EdgeqError(f"{self.batch} sequences", where="--batch", hint="Give 1 or more")
        if self.min_tps is not None and not 0 < self.min_tps < 1e6:
            raise EdgeqError(f"{self.min_tps:g} tokens/s", where="--min-tps", hint="Give more than 0")
        if self.max_memory is not None and self.max_memory < 1:
            raise EdgeqError("no memory at all", where="--max-memory", hint="Give a size such as 6GB")
        if self.kv_dtype is not None:
            _check_kv_dtype(self.kv_dtype)
        if self.objective not in OBJECTIVES:
            known = ", ".join(OBJECTIVES)
            raise EdgeqError(f"unknown objective {self.objective!r}", where="--objective", hint=f"Known: {known}")
        for name in self.targets:
            from edgeq.plan.targets import target

            target(name)


def _check_kv_dtype(name: str) -> None:
    from edgeq.estimate.kv import KV_DTYPES

    if name not in KV_DTYPES:
        raise EdgeqError(f"unknown KV cache dtype {name!r}", where="--kv-dtype", hint=f"Known: {', '.join(KV_DTYPES)}")


def parse_size(text: str) -> int:
    """Bytes of `6GB` (10^9), `6GiB` (2^30), `800MB` or a plain number.

    Raises:
        EdgeqError: not a size.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise EdgeqError(f"not a size: {text!r}", where="--max-memory", hint="Write it as 6GB, 800MB or 5.5GiB")
    unit = (found[2] or "").lower()
    scale = 1024 ** (" kmgt".index(unit[0])) if unit.endswith("ib") else _UNITS[unit[:1]]
    return int(float(found[1]) * scale)
