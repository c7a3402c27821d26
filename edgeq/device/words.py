"""A device's figures in words: the ones that `edgeq profile` and the application show."""

from __future__ import annotations

from edgeq.device.spec import Accelerator, Cpu, Device, Figure

_ORIGINS = {"local": "this machine", "catalog": "from the catalog", "file": "from a file", "adb": "over adb"}
_BASES = {"measured": "measured", "spec": "from its data sheet", "assumed": "assumed: no vendor states it"}


def origin(device: Device) -> str:
    """`this machine, Linux 6.1, measured 2026-01-31`."""
    measured = f", measured {device.date}" if device.date and device.origin != "adb" else ""
    system = f", {device.os}" if device.os != "any" else ""
    return f"{_ORIGINS[device.origin]}{system}{measured}"


def basis(figure: Figure) -> str:
    """Where a figure comes from: `measured, ±6%`, `from its data sheet`."""
    spread = f", ±{figure.spread:.0%}" if figure.spread is not None else ""
    return f"{_BASES[figure.basis]}{spread}"


def caches(cpu: Cpu) -> str:
    """`L1 2 x 32 KiB, L3 32 MiB`: data and unified caches."""
    counted: dict[tuple[int, int], int] = {}
    for cache in cpu.caches:
        counted[cache.level, cache.size_bytes] = counted.get((cache.level, cache.size_bytes), 0) + 1
    return ", ".join(
        f"L{level} {f'{count} x ' if count > 1 else ''}{binary(size)}" for (level, size), count in counted.items()
    )


def accelerator_line(accelerator: Accelerator) -> str:
    """One accelerator with what is known of it."""
    parts = [accelerator.name]
    if accelerator.memory_bytes:
        parts.append(f"{binary(accelerator.memory_bytes)}, {binary(accelerator.available_bytes)} free")
    elif accelerator.kind != "npu":
        parts.append("shares system memory")
    if accelerator.read_bandwidth and accelerator.memory_bytes:
        parts.append(quantity(accelerator.read_bandwidth))
    for name, rate in (("fp16", accelerator.fp16_matmul), ("int8", accelerator.int8_matmul)):
        if rate:
            parts.append(f"{name} {quantity(rate)}")
    if accelerator.compute_capability:
        parts.append(f"compute capability {accelerator.compute_capability}")
    if accelerator.link_bandwidth:
        parts.append(f"{accelerator.link_bandwidth.source} {quantity(accelerator.link_bandwidth)}")
    return ", ".join(parts)


def quantity(value: Figure) -> str:
    """The number with a decimal prefix and its unit."""
    if value.unit == "s":
        return f"{value.value * 1e6:.3g} µs" if value.value < 1e-3 else f"{value.value * 1e3:.3g} ms"
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value.value) >= size:
            # Memory is compared in GB/s, however fast.
            if value.unit == "B/s" and prefix == "T":
                continue
            number = value.value / size
            gap = " " if value.unit[0].islower() else ""  # GB/s, but G weights/s
            return f"{number:.{0 if number >= 100 else 1}f} {prefix}{gap}{value.unit}"
    return f"{value.value:.3g} {value.unit}"


def binary(size: int) -> str:
    """`23.5 GiB`, `512 B`."""
    for unit, step in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= step:
            number = size / step
            return f"{number:.0f} {unit}" if number == int(number) else f"{number:.1f} {unit}"
    return f"{size} B"
