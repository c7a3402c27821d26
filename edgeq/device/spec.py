"""Device: what the hardware is. Every figure says where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Basis = Literal["measured", "spec", "assumed"]


@dataclass(frozen=True, slots=True)
class Figure:
    """A number with its unit and provenance. `spread` is the half-range of repeated windows over the median."""

    value: float
    unit: str
    basis: Basis
    source: str = ""
    spread: float | None = None
    date: str | None = None  # ISO date of a measurement


@dataclass(frozen=True, slots=True)
class Cache:
    level: int
    size_bytes: int
    shared_by: int = 1  # logical processors


@dataclass(frozen=True, slots=True)
class Cpu:
    """`isa` holds the extensions that matter for matmul kernels: avx2, avx512f, avx512_vnni, avx_vnni, amx_int8,
    neon, dotprod, i8mm, sve, ..."""

    name: str
    arch: str  # x86_64, aarch64, ...
    cores: int  # physical, usable by this process
    threads: int
    isa: tuple[str, ...] = ()
    caches: tuple[Cache, ...] = ()
    microarchitecture: str = ""
    fp32_matmul: Figure | None = None  # FLOP/s, all cores
    int8_matmul: Figure | None = None  # operations/s (2 per multiply-add), all cores


@dataclass(frozen=True, slots=True)
class Memory:
    """System memory. `usable_bytes` is what a process may take: the cgroup limit where there is one."""

    total_bytes: int
    available_bytes: int
    read_bandwidth: Figure | None = None  # bytes/s, best thread count
    bandwidth_by_threads: tuple[tuple[int, float], ...] = ()  # threads -> bytes/s
    limit_bytes: int | None = None  # cgroup
    unified: bool = False  # shared with the GPU
    gpu_limit_bytes: int | None = None  # Metal's recommended working set

    @property
    def usable_bytes(self) -> int:
        return min(self.available_bytes, self.limit_bytes or self.available_bytes)


@dataclass(frozen=True, slots=True)
class Accelerator:
    kind: Literal["cuda", "rocm", "intel-gpu", "npu", "metal", "adreno", "mali"]
    name: str
    memory_bytes: int = 0  # dedicated VRAM; 0 when it shares system memory
    available_bytes: int = 0
    read_bandwidth: Figure | None = None
    fp16_matmul: Figure | None = None
    int8_matmul: Figure | None = None
    compute_capability: str | None = None
    link_bandwidth: Figure | None = None  # host to device, bytes/s
    driver: str = ""


@dataclass(frozen=True, slots=True)
class KernelRate:
    """What a runtime's kernel was measured to do here: the basis of an expected speed.

    Example: `KernelRate("onnxruntime/cpu", "MatMulNBits-4", "weights/s", Figure(...))`.
    """

    target: str
    kernel: str
    figure: Figure


@dataclass(frozen=True, slots=True)
class Device:
    name: str
    origin: Literal["local", "catalog", "file", "adb"]
    os: str
    cpu: Cpu
    memory: Memory
    accelerators: tuple[Accelerator, ...] = ()
    kernels: tuple[KernelRate, ...] = ()
    load: float | None = None  # share of the machine busy, 0..1, when this was made; measurements note theirs
    warnings: tuple[str, ...] = ()
    date: str | None = None
