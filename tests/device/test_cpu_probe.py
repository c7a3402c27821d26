"""Processors from recorded `/proc/cpuinfo`, sysfs and sysctl texts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgeq.device import cpu as cpu_module
from edgeq.device.cpu import count_cpu_list, last_cache_bytes, linux_cpu, parse_cpuinfo, parse_size
from edgeq.device.isa import known_isa
from edgeq.device.windows import kernel_features

Tree = Callable[[dict[str, str]], Path]

XEON = """processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Platinum 8480+
flags\t\t: fpu sse ssse3 fma avx f16c avx2 avx512f avx512bw avx_vnni avx512_bf16 amx_bf16 avx512_vnni amx_tile amx_int8

processor\t: 1
model name\t: Intel(R) Xeon(R) Platinum 8480+
flags\t\t: fpu
"""

RASPBERRY = "".join(
    f"""processor\t: {n}
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU part\t: 0xd0b

"""
    for n in range(4)
)

BIG_LITTLE = "\n".join(
    f"processor : {n}\nFeatures : asimd asimddp i8mm bf16\nCPU implementer : 0x41\nCPU part : {part}\n"
    for n, part in enumerate(["0xd80"] * 2 + ["0xd81"] * 3 + ["0xd82", "0xfff"])
)


def test_server_with_amx() -> None:
    text = parse_cpuinfo(XEON)
    assert text.name == "Intel Xeon Platinum 8480+"
    assert text.processors == 2
    isa = known_isa(text.flags)
    assert {"avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_tile"} <= set(isa)
    assert "fpu" not in isa


def test_raspberry_pi_names_its_cores_by_part_number() -> None:
    text = parse_cpuinfo(RASPBERRY)
    assert text.name == "4x Cortex-A76"
    assert known_isa(text.flags) == ("neon", "fp16", "dotprod")


def test_phone_lists_big_cores_first_and_keeps_unknown_parts() -> None:
    assert parse_cpuinfo(BIG_LITTLE).name == "1x ARM part 0xfff + 1x Cortex-X4 + 3x Cortex-A720 + 2x Cortex-A520"


@pytest.mark.parametrize("text", ["", "garbage", "processor", ":::\n\x00", "flags :"])
def test_cpuinfo_that_says_nothing(text: str) -> None:
    assert parse_cpuinfo(text).flags == frozenset()
    assert parse_cpuinfo(text).name == ""


def machine(extra: dict[str, str] | None = None) -> dict[str, str]:
    """Two cores of two hyper-threads each, 8 MiB of L3 in common."""
    files = {"proc/cpuinfo": XEON, "proc/self/cgroup": "0::/\n", **(extra or {})}
    for n in range(4):
        base = f"sys/devices/system/cpu/cpu{n}"
        files[f"{base}/topology/core_id"] = str(n // 2)
        files[f"{base}/topology/physical_package_id"] = "0"
        pair = "0-1" if n < 2 else "2-3"
        for index, (level, kind, size, shared) in enumerate(
            [(1, "Data", "48K", pair), (1, "Instruction", "32K", pair), (2, "Unified", "2048K", pair),
             (3, "Unified", "8192K", "0-3")]
        ):  # fmt: skip
            cache = f"{base}/cache/index{index}"
            files |= {f"{cache}/level": f"{level}\n", f"{cache}/type": f"{kind}\n", f"{cache}/size": f"{size}\n"}
            files[f"{cache}/shared_cpu_list"] = f"{shared}\n"
    return files


def test_hyper_threads_of_one_core_count_once(tree: Tree) -> None:
    found = linux_cpu(tree(machine()), {0, 1, 2, 3})
    assert (found.cores, found.threads) == (2, 4)


def test_affinity_cuts_cores_and_threads(tree: Tree) -> None:
    found = linux_cpu(tree(machine()), {0, 1})
    assert (found.cores, found.threads) == (1, 2)


def test_the_containers_quota_cuts_too(tree: Tree) -> None:
    found = linux_cpu(tree(machine({"sys/fs/cgroup/cpu.max": "150000 100000"})), {0, 1, 2, 3})
    assert (found.cores, found.threads) == (2, 2)


def test_caches_are_counted_once_and_instructions_left_out(tree: Tree) -> None:
    found = linux_cpu(tree(machine()), {0, 1, 2, 3})
    assert [(c.level, c.size_bytes >> 10, c.shared_by) for c in found.caches] == [
        (1, 48, 2), (1, 48, 2), (2, 2048, 2), (2, 2048, 2), (3, 8192, 4),
    ]  # fmt: skip
    assert last_cache_bytes(found) == 8192 << 10


def test_without_topology_every_thread_is_a_core(tree: Tree) -> None:
    found = linux_cpu(tree({"proc/cpuinfo": RASPBERRY}), {0, 1, 2, 3})
    assert (found.cores, found.threads, found.caches) == (4, 4, ())
    assert last_cache_bytes(found) == 0


def test_sizes_and_processor_lists() -> None:
    assert [parse_size(t) for t in ("32768K", "8M\n", "512", "x", "")] == [32768 << 10, 8 << 20, 512, 0, 0]
    assert [count_cpu_list(t) for t in ("0-3,8", "5", "", "0-1\n")] == [5, 1, 1, 2]


def test_windows_features_by_the_kernels_word() -> None:
    assert kernel_features(lambda number: number in (40, 43)) == {"avx2", "dotprod"}
    assert kernel_features(None) == frozenset()


def test_this_machine_has_a_name_and_a_core() -> None:
    found = cpu_module.probe_cpu()
    assert found.name
    assert 1 <= found.cores <= found.threads
