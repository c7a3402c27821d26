"""Benchmark: what a session did on a device, beside what the plan had promised. A record, nothing more."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from edgeq.device.spec import Device


@dataclass(frozen=True, slots=True)
class Samples:
    """Repeated measurements of one quantity, in the order they were taken."""

    runs: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.runs or not all(math.isfinite(v) and v >= 0 for v in self.runs):
            raise ValueError("samples are one or more finite numbers, none negative")

    @classmethod
    def of(cls, values: Iterable[float]) -> Samples:
        return cls(tuple(float(v) for v in values))

    @property
    def median(self) -> float:
        return statistics.median(self.runs)

    @property
    def best(self) -> float:
        return max(self.runs)

    @property
    def spread(self) -> float:
        """Half the range over the median (0.03: plus or minus 3 %); 0 for a single run."""
        middle = self.median
        return (max(self.runs) - min(self.runs)) / (2 * middle) if middle else 0.0


@dataclass(frozen=True, slots=True)
class Prefill:
    """`tokens` prompt tokens on an empty cache: tokens/s, and the seconds until the first new token is chosen."""

    tokens: int
    tps: Samples
    ttft_s: Samples


@dataclass(frozen=True, slots=True)
class Decode:
    """`tokens` new tokens, one by one, after a prompt of `context` tokens: tokens/s."""

    tokens: int
    context: int
    tps: Samples


@dataclass(frozen=True, slots=True)
class Promise:
    """What the estimate said, before the measurement.

    Attributes:
        decode_tps, prefill_tps: expected tokens/s (prefill at `prefill_tokens` prompt tokens).
        memory_bytes: expected peak resident memory of the process.
        ceiling_tps: decode bound by bytes read per token over read bandwidth.
        basis: where the expected speed comes from (`measured here`, `learned`, `prior`).
    """

    decode_tps: float | None = None
    prefill_tps: float | None = None
    prefill_tokens: int | None = None
    memory_bytes: int | None = None
    ceiling_tps: float | None = None
    basis: str = ""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One run of `edgeq bench`.

    Attributes:
        date: ISO 8601, UTC.
        device: `device_key` of the machine.
        target: runtime and processor, `onnxruntime/cpu`.
        import_s, load_s: seconds to import edgeq and to open the artifact, in a fresh process.
        baseline_bytes, loaded_bytes, peak_bytes: resident memory of that process before the import, after the load,
            and at its highest.
        load_before, load_during: share (0..1) of the machine's processors busy with other work.
        artifact_bytes: size of the artifact's files.
        versions: of what was measured (`edgeq`, `onnxruntime`, ...).
    """

    date: str
    device: str
    target: str
    model: str
    family: str
    scheme: str
    artifact: str
    artifact_bytes: int
    threads: int
    import_s: float
    load_s: float
    prefill: tuple[Prefill, ...]
    decode: Decode
    baseline_bytes: int
    loaded_bytes: int
    peak_bytes: int
    load_before: float
    load_during: float
    promise: Promise = Promise()
    versions: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()


def device_key(device: Device) -> str:
    """Which machine a measurement belongs to: processor, usable threads, memory in GiB, accelerators.

    Two containers of one host with different limits are different machines here, because they run at different speeds.
    """
    memory = round(min(device.memory.total_bytes, device.memory.limit_bytes or device.memory.total_bytes) / 2**30)
    parts = [device.cpu.name, f"{device.cpu.threads} threads", f"{memory} GiB", *(a.name for a in device.accelerators)]
    return " / ".join(parts)
