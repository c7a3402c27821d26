"""Apple chips and Intel Macs from recorded `sysctl` output."""

from __future__ import annotations

import pytest

from edgeq.device.apple import (
    chip_bandwidth,
    cpu_from_sysctl,
    gpu_limit_bytes,
    metal_accelerator,
    parse_sysctl,
    unified_memory,
)
from edgeq.device.spec import Memory

GIB = 1 << 30
M3_PRO = """hw.ncpu: 12
hw.physicalcpu: 12
hw.logicalcpu: 12
hw.memsize: 38654705664
hw.perflevel0.l1dcachesize: 131072
hw.perflevel0.l2cachesize: 16777216
hw.perflevel0.cpusperl2: 6
hw.optional.arm64: 1
hw.optional.AdvSIMD: 1
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_I8MM: 1
hw.optional.arm.FEAT_BF16: 1
hw.optional.arm.FEAT_FP16: 1
hw.optional.arm.FEAT_SME: 0
machdep.cpu.brand_string: Apple M3 Pro
iogpu.wired_limit_mb: 0
"""
INTEL_MAC = """hw.physicalcpu: 6
hw.logicalcpu: 12
hw.l1dcachesize: 32768
hw.l2cachesize: 262144
hw.l3cachesize: 12582912
machdep.cpu.brand_string: Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz
machdep.cpu.features: FPU SSE SSSE3 FMA AVX1.0 F16C
machdep.cpu.leaf7_features: AVX2 BMI1
"""


def test_apple_chip() -> None:
    cpu = cpu_from_sysctl(parse_sysctl(M3_PRO))
    assert (cpu.name, cpu.arch, cpu.cores, cpu.threads) == ("Apple M3 Pro", "aarch64", 12, 12)
    assert cpu.isa == ("neon", "fp16", "dotprod", "i8mm", "bf16")
    assert [(c.level, c.size_bytes, c.shared_by) for c in cpu.caches] == [(1, 131072, 1), (2, 16777216, 6)]


def test_intel_mac() -> None:
    values = parse_sysctl(INTEL_MAC)
    cpu = cpu_from_sysctl(values)
    assert (cpu.arch, cpu.cores, cpu.threads) == ("x86_64", 6, 12)
    assert cpu.isa == ("ssse3", "avx", "f16c", "fma", "avx2")
    assert metal_accelerator(values, None) is None
    memory = Memory(16 * GIB, 8 * GIB)
    assert unified_memory(memory, values) is memory


@pytest.mark.parametrize(("total", "limit"), [(16, 16 * 2 / 3), (36, 24), (64, 48), (128, 96)])
def test_working_set_is_two_thirds_and_above_36_gib_three_quarters(total: int, limit: float) -> None:
    assert gpu_limit_bytes(total * GIB) == int(limit * GIB)


def test_the_users_wired_limit_wins() -> None:
    values = parse_sysctl(M3_PRO.replace("wired_limit_mb: 0", "wired_limit_mb: 30720"))
    memory = unified_memory(Memory(36 * GIB, 20 * GIB), values)
    assert memory.unified
    assert memory.gpu_limit_bytes == 30 * GIB
    assert gpu_limit_bytes(8 * GIB, 999_999) == 8 * GIB


def test_the_gpu_shares_memory_at_the_chips_rate() -> None:
    values = parse_sysctl(M3_PRO)
    bandwidth = chip_bandwidth(values)
    assert bandwidth is not None
    assert bandwidth.value == 150e9
    gpu = metal_accelerator(values, bandwidth)
    assert gpu is not None
    assert (gpu.kind, gpu.memory_bytes, gpu.read_bandwidth) == ("metal", 0, bandwidth)


def test_an_unknown_chip_or_no_sysctl() -> None:
    assert chip_bandwidth({"machdep.cpu.brand_string": "Apple M99"}) is None
    assert chip_bandwidth({}) is None
    assert cpu_from_sysctl(parse_sysctl("")).cores == 1
