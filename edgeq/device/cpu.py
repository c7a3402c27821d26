"""The processor: name, usable cores, instruction sets, caches. Linux and Android text, Darwin's sysctl, Windows."""

from __future__ import annotations

import math
import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from edgeq.device.cgroup import read_limits
from edgeq.device.isa import known_isa
from edgeq.device.spec import Cache, Cpu
from edgeq.device.text import read_int, read_text

ARCHES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64", "armv8l": "aarch64"}

# Part numbers of /proc/cpuinfo on ARM systems that print no name: (implementer, part) -> core.
# Arm's and Qualcomm's are in the kernel's arch/arm64/include/asm/cputype.h.
ARM_PARTS = {
    (0x41, 0xD03): "Cortex-A53", (0x41, 0xD04): "Cortex-A35", (0x41, 0xD05): "Cortex-A55",
    (0x41, 0xD07): "Cortex-A57", (0x41, 0xD08): "Cortex-A72", (0x41, 0xD09): "Cortex-A73",
    (0x41, 0xD0A): "Cortex-A75", (0x41, 0xD0B): "Cortex-A76", (0x41, 0xD0C): "Neoverse-N1",
    (0x41, 0xD0D): "Cortex-A77", (0x41, 0xD40): "Neoverse-V1", (0x41, 0xD41): "Cortex-A78",
    (0x41, 0xD42): "Cortex-A78AE", (0x41, 0xD44): "Cortex-X1", (0x41, 0xD46): "Cortex-A510",
    (0x41, 0xD47): "Cortex-A710", (0x41, 0xD48): "Cortex-X2", (0x41, 0xD49): "Neoverse-N2",
    (0x41, 0xD4B): "Cortex-A78C", (0x41, 0xD4D): "Cortex-A715", (0x41, 0xD4E): "Cortex-X3",
    (0x41, 0xD4F): "Neoverse-V2", (0x41, 0xD80): "Cortex-A520", (0x41, 0xD81): "Cortex-A720",
    (0x41, 0xD82): "Cortex-X4", (0x41, 0xD85): "Cortex-X925", (0x41, 0xD87): "Cortex-A725",
    (0x51, 0x001): "Oryon",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class CpuText:
    """What `/proc/cpuinfo` says."""

    name: str = ""
    flags: frozenset[str] = frozenset()
    processors: int = 0


def probe_cpu(root: Path = Path("/")) -> Cpu:
    """The processor of this machine as this process may use it."""
    if sys.platform == "darwin":
        from edgeq.device.apple import cpu_from_sysctl, read_sysctl

        return cpu_from_sysctl(read_sysctl())
    if sys.platform == "win32":
        from edgeq.device.windows import probe_windows_cpu

        return probe_windows_cpu()
    return linux_cpu(root, usable_processors())


def usable_processors() -> set[int]:
    """Logical processors this process may be scheduled on."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def linux_cpu(root: Path, processors: set[int]) -> Cpu:
    """The processor by `/proc` and `/sys` under `root`, cut to the affinity mask and the container's quota."""
    text = parse_cpuinfo(read_text(root / "proc/cpuinfo"))
    arch = ARCHES.get(platform.machine().lower(), platform.machine().lower())
    sys_cpu = root / "sys/devices/system/cpu"
    cores, threads = _with_quota(_physical_cores(sys_cpu, processors), len(processors), read_limits(root).cpus)
    micro, features = archspec_host() if root == Path("/") else ("", frozenset())
    return Cpu(
        name=text.name or micro or arch,
        arch=arch,
        cores=cores,
        threads=threads,
        isa=known_isa(text.flags | features),
        caches=linux_caches(sys_cpu),
        microarchitecture=micro,
    )


def archspec_host() -> tuple[str, frozenset[str]]:
    """archspec's name of the microarchitecture and its features; nothing where it does not know the machine."""
    try:
        import archspec.cpu

        host = archspec.cpu.host()
        return str(host.name), frozenset(host.features)
    except Exception:  # a third party's detection on unforeseen hardware: it only adds detail
        return "", frozenset()


def parse_cpuinfo(text: str) -> CpuText:
    """`/proc/cpuinfo` of x86, ARM servers, Raspberry Pi and Android."""
    fields: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip().lower(), []).append(value.strip())
    flags = frozenset(" ".join((fields.get("flags") or fields.get("features") or [""])[:1]).split())
    return CpuText(_name(fields), flags, len(fields.get("processor", [])))


def _name(fields: dict[str, list[str]]) -> str:
    for key in ("model name", "hardware", "cpu model"):
        named = [v for v in fields.get(key, []) if v and not v.isdigit()]
        if named and not (key == "model name" and named[0].startswith("ARMv")):
            return re.sub(r"\s+", " ", re.sub(r"\((R|TM)\)", "", named[0])).strip()
    implementers, parts = fields.get("cpu implementer", []), fields.get("cpu part", [])
    names = [ARM_PARTS.get((_hex(i), _hex(p)), f"ARM part {p}") for i, p in zip(implementers, parts, strict=False)]
    counted = {name: names.count(name) for name in dict.fromkeys(reversed(names))}  # big cores come last
    return " + ".join(f"{count}x {name}" for name, count in counted.items())


def _hex(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError:
        return -1


def _physical_cores(sys_cpu: Path, processors: set[int]) -> int:
    """Distinct (package, core) pairs among the usable processors; hyper-threads of one core count once."""
    pairs = set()
    for n in processors:
        topology = sys_cpu / f"cpu{n}/topology"
        core = read_int(topology / "core_id")
        if core is None:
            return len(processors)
        # Phones number the cores of each cluster anew, so the cluster belongs to the name.
        pairs.add((read_int(topology / "physical_package_id"), read_int(topology / "cluster_id"), core))
    return len(pairs)


def _with_quota(cores: int, threads: int, cpus: float | None) -> tuple[int, int]:
    if cpus is None:
        return cores, threads
    most = max(1, math.ceil(cpus))
    return min(cores, most), min(threads, most)


def linux_caches(sys_cpu: Path) -> tuple[Cache, ...]:
    """Data and unified caches, one entry for each that exists in the machine."""
    seen: dict[tuple[int, str], Cache] = {}
    for index in sorted(sys_cpu.glob("cpu[0-9]*/cache/index[0-9]*")):
        level, size = read_int(index / "level"), parse_size(read_text(index / "size"))
        if level is None or not size or read_text(index / "type").strip() == "Instruction":
            continue
        shared = read_text(index / "shared_cpu_list").strip() or index.parent.parent.name
        seen[level, shared] = Cache(level, size, count_cpu_list(shared))
    return tuple(sorted(seen.values(), key=lambda c: c.level))


def parse_size(text: str) -> int:
    """`32768K` or `8M` in bytes; 0 when it is neither."""
    match = re.fullmatch(r"(\d+)\s*([KMG]?)", text.strip())
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2]] if match else 0


def count_cpu_list(text: str) -> int:
    """How many processors `0-3,8` names."""
    count = 0
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            count += int(last) - int(first) + 1 if last.isdigit() else 1
    return max(count, 1)


def last_cache_bytes(cpu: Cpu) -> int:
    """All caches of the last level together: a buffer must be far larger."""
    last = max((c.level for c in cpu.caches), default=0)
    return sum(c.size_bytes for c in cpu.caches if c.level == last)
