"""Apple silicon and Intel Macs: `sysctl` text, unified memory, Metal's working-set limit."""

from __future__ import annotations

import dataclasses
from functools import cache

from edgeq.device.isa import known_isa
from edgeq.device.spec import Accelerator, Cache, Cpu, Figure, Memory
from edgeq.device.text import output

GIB = 1 << 30
SYSCTL = ("hw", "machdep.cpu", "iogpu")


@cache
def read_sysctl() -> dict[str, str]:
    """All of the trees above; empty where there is no sysctl."""
    return parse_sysctl("".join(output(["sysctl", tree]) for tree in SYSCTL))


def parse_sysctl(text: str) -> dict[str, str]:
    """`name: value` lines, as `sysctl hw` prints them."""
    pairs = (line.partition(": ") for line in text.splitlines())
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}


def cpu_from_sysctl(values: dict[str, str]) -> Cpu:
    """The processor; performance cores and efficiency cores are counted together."""
    arm = values.get("hw.optional.arm64") == "1"
    threads = _integer(values, "hw.logicalcpu") or _integer(values, "hw.ncpu") or 1
    return Cpu(
        name=values.get("machdep.cpu.brand_string", "Apple"),
        arch="aarch64" if arm else "x86_64",
        cores=_integer(values, "hw.physicalcpu") or threads,
        threads=threads,
        isa=known_isa(_flags(values, arm)),
        caches=_caches(values),
    )


def _flags(values: dict[str, str], arm: bool) -> set[str]:
    if arm:
        on = {name.rsplit(".", 1)[-1] for name, value in values.items() if "hw.optional" in name and value == "1"}
        return on | {"neon"}
    names = ("machdep.cpu.features", "machdep.cpu.leaf7_features")
    return set(" ".join(values.get(name, "") for name in names).split())


def _caches(values: dict[str, str]) -> tuple[Cache, ...]:
    """The performance cores' caches (`perflevel0`), or those of an Intel Mac."""
    sharers = _integer(values, "hw.perflevel0.cpusperl2") or 1
    sizes = {
        1: _integer(values, "hw.perflevel0.l1dcachesize") or _integer(values, "hw.l1dcachesize"),
        2: _integer(values, "hw.perflevel0.l2cachesize") or _integer(values, "hw.l2cachesize"),
        3: _integer(values, "hw.l3cachesize"),
    }
    return tuple(Cache(level, size, sharers if level == 2 else 1) for level, size in sizes.items() if size)


def gpu_limit_bytes(total_bytes: int, wired_limit_mb: int = 0) -> int:
    """What Metal recommends as the GPU's working set.

    `iogpu.wired_limit_mb` when the user has set it; else two thirds of the memory up to 36 GiB and three quarters
    above, which is what `recommendedMaxWorkingSetSize` has been seen to return (10.67 GiB of 16, 48 of 64).
    """
    if wired_limit_mb > 0:
        return min(wired_limit_mb << 20, total_bytes)
    return total_bytes * 2 // 3 if total_bytes <= 36 * GIB else total_bytes * 3 // 4


def unified_memory(memory: Memory, values: dict[str, str]) -> Memory:
    """The same memory seen as shared with the GPU; unchanged on Intel Macs."""
    if values.get("hw.optional.arm64") != "1":
        return memory
    limit = gpu_limit_bytes(memory.total_bytes, _integer(values, "iogpu.wired_limit_mb"))
    return dataclasses.replace(memory, unified=True, gpu_limit_bytes=limit)


def metal_accelerator(values: dict[str, str], read_bandwidth: Figure | None) -> Accelerator | None:
    """The GPU of an Apple chip. It reads the system's memory, at the rate its chip is specified for."""
    if values.get("hw.optional.arm64") != "1":
        return None
    chip = values.get("machdep.cpu.brand_string", "Apple")
    return Accelerator("metal", f"{chip} GPU", read_bandwidth=read_bandwidth)


def chip_bandwidth(values: dict[str, str]) -> Figure | None:
    """The catalog's figure for this chip: the GPU reaches it, the CPU alone often does not."""
    from edgeq.device.catalog import catalog_device, entries

    chip = values.get("machdep.cpu.brand_string", "")
    name = next((name for name, entry in entries().items() if entry.get("cpu") == chip), None)
    return catalog_device(name).memory.read_bandwidth if name and chip else None


def _integer(values: dict[str, str], name: str) -> int:
    try:
        return int(values.get(name, "0").split()[0])
    except (ValueError, IndexError):
        return 0
