"""A phone from recorded `getprop`, meminfo and cpuinfo."""

from __future__ import annotations

import pytest

from edgeq.device.android import parse_getprop, parse_meminfo, profile_android
from edgeq.errors import EdgeqError

GETPROP = """[ro.board.platform]: [sun]
[ro.build.version.release]: [15]
[ro.product.cpu.abi]: [arm64-v8a]
[ro.product.manufacturer]: [samsung]
[ro.product.model]: [SM-S931B]
[ro.soc.manufacturer]: [QTI]
[ro.soc.model]: [SM8750]
"""
MEMINFO = "MemTotal:       11579612 kB\nMemFree:          312344 kB\nMemAvailable:    5432100 kB\n"
CPUINFO = "".join(
    f"processor : {n}\nFeatures : fp asimd asimdhp asimddp i8mm bf16\nCPU implementer : 0x51\nCPU part : 0x001\n"
    for n in range(8)
)


def shell(**texts: str) -> dict[str, str]:
    return {"getprop": GETPROP, "cat /proc/meminfo": MEMINFO, "cat /proc/cpuinfo": CPUINFO} | texts


def test_a_phone_with_a_chip_of_the_catalog() -> None:
    phone = profile_android(shell().__getitem__)
    assert (phone.name, phone.origin, phone.os) == ("Samsung SM-S931B", "adb", "Android 15")
    assert phone.cpu.name == "QTI SM8750 (8x Oryon)"
    assert (phone.cpu.cores, phone.cpu.arch) == (8, "aarch64")
    assert phone.cpu.isa == ("neon", "fp16", "dotprod", "i8mm", "bf16")
    assert phone.memory.total_bytes == 11579612 << 10
    assert phone.memory.available_bytes == 5432100 << 10
    assert phone.memory.read_bandwidth is not None
    assert phone.memory.read_bandwidth.value == 84.8e9
    assert [a.kind for a in phone.accelerators] == ["adreno"]


def test_an_unknown_chip_has_no_bandwidth_and_says_so() -> None:
    other = GETPROP.replace("SM8750", "MT6989").replace("[sun]", "[mt6989]")
    phone = profile_android(shell(getprop=other).__getitem__)
    assert phone.memory.read_bandwidth is None
    assert any("MT6989" in w for w in phone.warnings)


def test_the_platform_stands_in_for_an_empty_chip_name() -> None:
    old = GETPROP.replace("[SM8750]", "[]").replace("[sun]", "[zuma]")
    phone = profile_android(shell(getprop=old).__getitem__)
    assert phone.memory.read_bandwidth is not None
    assert phone.memory.read_bandwidth.basis == "assumed"


def test_no_phone_no_adb_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EdgeqError, match="no phone answers"):
        profile_android(lambda command: "")
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(EdgeqError, match="adb is not on the path"):
        profile_android()
    with pytest.raises(EdgeqError, match="did not tell its memory"):
        parse_meminfo("garbage")


def test_properties_with_brackets_and_carriage_returns() -> None:
    assert parse_getprop("[a.b]: [c [d]]\r\n[e]: []\nnoise\n") == {"a.b": "c [d]", "e": ""}
