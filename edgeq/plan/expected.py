"""Expected speed: measured here; else the sum of kernels timed here; else what this device taught; else a prior.

The sum over kernels comes before the share learned from other models: it knows that a small model spends its time
elsewhere than a large one. A benchmark taken beside other work comes last: it says how busy the machine was.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeq.device.load import BUSY
from edgeq.estimate.ceiling import ceiling
from edgeq.estimate.prior import Expected, prior_decode
from edgeq.estimate.speed import decode_parts, expected_decode
from edgeq.store import Store

if TYPE_CHECKING:
    from edgeq.benchmark import Benchmark
    from edgeq.device.spec import Device
    from edgeq.model.spec import ModelSpec
    from edgeq.scheme import Scheme


class Experience:
    """The benchmarks of one device.

    Args:
        benchmarks: for a test; by default those of the local store.
    """

    def __init__(self, device: Device, benchmarks: Sequence[Benchmark] | None = None) -> None:
        self.device = device
        self.known = list(Store().benchmarks(device=device) if benchmarks is None else benchmarks)
        self.quiet = [b for b in self.known if not _busy(b)]

    def decode(
        self, spec: ModelSpec, scheme: Scheme, target: str, context: int, batch: int, ceiling_tps: float | None, kv: str
    ) -> Expected | None:
        """Expected tokens/s with `context` tokens in the cache; None when nothing at all is known."""
        kernels = self._kernels(spec, scheme, target, context) if batch == 1 else None
        for known in (self.quiet, self.known):
            found = self._measured(known, spec, scheme, target, context, ceiling_tps, kv) if batch == 1 else None
            found = found or kernels or self._learned(known, scheme, target, ceiling_tps)
            if found is not None:
                return found
        return None if ceiling_tps is None else prior_decode(spec, scheme, target, ceiling_tps)

    def _measured(
        self,
        known: Sequence[Benchmark],
        spec: ModelSpec,
        scheme: Scheme,
        target: str,
        context: int,
        ceiling_tps: float | None,
        kv: str,
    ) -> Expected | None:
        """The latest benchmark of this model, scheme and target, brought to `context` by the ratio of ceilings."""
        same = [
            b
            for b in known
            if b.target == target
            and b.scheme == scheme.name
            and b.family == spec.family
            and _short(b.model) == _short(spec.name)
        ]
        if not same:
            return None
        last = same[-1]
        seen = last.decode.context + last.decode.tokens // 2
        tps = last.decode.tps.median
        at_seen = ceiling(self.device, spec, scheme, target, max(1, seen), kv_dtype=kv).decode_tps
        ratio = ceiling_tps / at_seen if ceiling_tps and at_seen else 1.0
        moved = f", brought from {seen:,} to {context:,} tokens" if abs(ratio - 1) > 0.02 else ""
        beside = ", beside other work" if _busy(last) else ""
        return Expected(tps * ratio, "measured here", f"{tps:.1f} tok/s on {last.date[:10]}{beside}{moved}")

    def _kernels(self, spec: ModelSpec, scheme: Scheme, target: str, context: int) -> Expected | None:
        if decode_parts(self.device, spec, scheme, target, context=context) is None:
            return None
        return expected_decode(self.device, spec, scheme, target, context=context)

    def _learned(
        self, known: Sequence[Benchmark], scheme: Scheme, target: str, ceiling_tps: float | None
    ) -> Expected | None:
        """The median share of the ceiling that this target reached here with other models."""
        shares = [
            b.decode.tps.median / b.promise.ceiling_tps
            for b in known
            if b.target == target and b.promise.ceiling_tps and _bits(b.scheme) == scheme.linear.bits
        ]
        if not shares or ceiling_tps is None:
            return None
        share = min(1.0, statistics.median(shares))
        count = f"{len(shares)} benchmark{'s' if len(shares) > 1 else ''}"
        return Expected(share * ceiling_tps, "learned", f"{share:.0%} of the ceiling, as in {count} on this device")


def _busy(benchmark: Benchmark) -> bool:
    """Whether other work took so much of the machine that the benchmark is doubtful."""
    return max(benchmark.load_before, benchmark.load_during) > BUSY


def _short(name: str) -> str:
    return name.rstrip("/").rsplit("/", 1)[-1].lower()


def _bits(scheme: str) -> int | None:
    from edgeq.errors import EdgeqError
    from edgeq.scheme import named_scheme

    try:
        return named_scheme(scheme).linear.bits
    except EdgeqError:
        return None
