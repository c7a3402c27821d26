"""Which memory a target runs from: its size, its read bandwidth, the arithmetic beside it."""

from __future__ import annotations

from dataclasses import dataclass

from edgeq.device.spec import Accelerator, Device, Figure

# the part of a target after the slash -> kinds of accelerator that can serve it
ACCELERATOR_KINDS: dict[str, tuple[str, ...]] = {
    "cuda": ("cuda",),
    "rocm": ("rocm",),
    "metal": ("metal",),
    "gpu": ("intel-gpu",),
    "npu": ("npu",),
    "vulkan": ("cuda", "rocm", "intel-gpu", "adreno", "mali"),
    "opencl": ("adreno",),
}


@dataclass(frozen=True, slots=True)
class Pool:
    """The memory that holds weights and cache, and the processor that reads them.

    Attributes:
        name: the processor's name.
        capacity: bytes that a process may take there.
        dedicated: VRAM of its own; else system memory.
        bandwidth: read bandwidth, bytes/s; None when it is unknown.
        matmul: the fastest known matrix rate, operations/s.
        floating: the fastest known floating-point matrix rate, FLOP/s.
    """

    name: str
    capacity: int
    dedicated: bool
    bandwidth: Figure | None
    matmul: Figure | None
    floating: Figure | None


def accelerator(device: Device, target: str) -> Accelerator | None:
    """The device's best accelerator for `target`: the one with most memory of those that can serve it."""
    kinds = ACCELERATOR_KINDS.get(target.split("/")[-1], ())
    able = [a for a in device.accelerators if a.kind in kinds]
    return max(able, key=lambda a: a.memory_bytes, default=None)


def pool(device: Device, target: str) -> Pool | None:
    """The memory `target` runs from, or None when the device lacks the accelerator it needs."""
    place = target.split("/")[-1]
    memory, cpu = device.memory, device.cpu
    if place not in ACCELERATOR_KINDS:
        return Pool(
            cpu.name,
            memory.usable_bytes,
            False,
            memory.read_bandwidth,
            _fastest(cpu.int8_matmul, cpu.fp32_matmul),
            cpu.fp32_matmul,
        )
    chip = accelerator(device, target)
    if chip is None:
        return None
    rate = _fastest(chip.int8_matmul, chip.fp16_matmul)
    if chip.memory_bytes:
        capacity = chip.available_bytes or chip.memory_bytes
        return Pool(chip.name, capacity, True, chip.read_bandwidth, rate, chip.fp16_matmul)
    capacity = memory.usable_bytes
    if chip.kind == "metal" and memory.gpu_limit_bytes:
        capacity = min(capacity, memory.gpu_limit_bytes)
    return Pool(chip.name, capacity, False, chip.read_bandwidth or memory.read_bandwidth, rate, chip.fp16_matmul)


def _fastest(*figures: Figure | None) -> Figure | None:
    return max((f for f in figures if f is not None and f.value > 0), key=lambda f: f.value, default=None)
