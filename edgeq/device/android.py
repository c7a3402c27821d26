"""An Android phone over `adb`: what its properties, `/proc/meminfo` and `/proc/cpuinfo` say."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace

from edgeq.device.cpu import parse_cpuinfo
from edgeq.device.isa import known_isa
from edgeq.device.load import today
from edgeq.device.spec import Accelerator, Cpu, Device, Figure, Memory
from edgeq.device.text import output
from edgeq.errors import EdgeqError

Shell = Callable[[str], str]  # a command for the phone's shell -> what it prints

# `ro.soc.model` (or, where it is empty, `ro.board.platform`) -> the catalog's entry with the same chip.
CHIPS = {
    "SM8650": "snapdragon-8-gen-3",
    "SM8750": "snapdragon-8-elite",
    "Tensor G3": "pixel-8",
    "Tensor G4": "pixel-9",
    "pineapple": "snapdragon-8-gen-3",
    "sun": "snapdragon-8-elite",
    "zuma": "pixel-8",
    "zumapro": "pixel-9",
}


def profile_android(shell: Shell | None = None) -> Device:
    """The phone that `adb` is connected to. Its memory bandwidth is the catalog's for its chip, or unknown.

    Raises:
        EdgeqError: no adb, or no phone that answers.
    """
    ask = shell or adb_shell()
    properties = parse_getprop(ask("getprop"))
    if not properties:
        raise EdgeqError("no phone answers over adb", hint="Turn on USB debugging; `adb devices` must list it")
    return android_device(properties, ask("cat /proc/meminfo"), ask("cat /proc/cpuinfo"))


def adb_shell() -> Shell:
    adb = shutil.which("adb")
    if adb is None:
        raise EdgeqError("adb is not on the path", hint="Install Android's platform tools")
    return lambda command: output([adb, "shell", command], timeout=15)


def android_device(properties: dict[str, str], meminfo: str, cpuinfo: str) -> Device:
    """The phone by the texts of `getprop`, `/proc/meminfo` and `/proc/cpuinfo`."""
    chip = properties.get("ro.soc.model") or properties.get("ro.board.platform", "")
    bandwidth, accelerators = _chip_figures(properties)
    memory = replace(parse_meminfo(meminfo), read_bandwidth=bandwidth)
    warnings = ["the phone gives one app only part of the free memory"]
    if bandwidth is None:
        warnings.append(f"the memory bandwidth of its chip {chip or '(unknown)'} is not in the catalog")
    maker = properties.get("ro.product.manufacturer", "").title()
    return Device(
        name=f"{maker} {properties.get('ro.product.model', 'Android device')}".strip(),
        origin="adb",
        os=f"Android {properties.get('ro.build.version.release', '')}".strip(),
        cpu=android_cpu(properties, cpuinfo, chip),
        memory=memory,
        accelerators=accelerators,
        warnings=tuple(warnings),
        date=today(),
    )


def android_cpu(properties: dict[str, str], cpuinfo: str, chip: str) -> Cpu:
    text = parse_cpuinfo(cpuinfo)
    cores = max(text.processors, 1)
    maker = properties.get("ro.soc.manufacturer", "")
    arm64 = properties.get("ro.product.cpu.abi", "").startswith("arm64")
    return Cpu(
        name=f"{maker} {chip}".strip() + (f" ({text.name})" if text.name else ""),
        arch="aarch64" if arm64 else properties.get("ro.product.cpu.abi", "unknown"),
        cores=cores,
        threads=cores,
        isa=known_isa(text.flags),
    )


def _chip_figures(properties: dict[str, str]) -> tuple[Figure | None, tuple[Accelerator, ...]]:
    keys = (properties.get("ro.soc.model", ""), properties.get("ro.board.platform", ""))
    name = next((CHIPS[key] for key in keys if key in CHIPS), None)
    if name is None:
        return None, ()
    from edgeq.device.catalog import catalog_device

    twin = catalog_device(name)
    return twin.memory.read_bandwidth, twin.accelerators


def parse_getprop(text: str) -> dict[str, str]:
    """Lines `[name]: [value]`."""
    return dict(re.findall(r"^\[([^\]]+)\]: \[(.*)\]\r?$", text, re.MULTILINE))


def parse_meminfo(text: str) -> Memory:
    """`/proc/meminfo`, whose sizes are in KiB."""
    kib = {name: int(value) for name, value in re.findall(r"^(\w+):\s*(\d+)", text, re.MULTILINE)}
    total = kib.get("MemTotal", 0) << 10
    if not total:
        raise EdgeqError("the phone did not tell its memory", where="/proc/meminfo")
    return Memory(total_bytes=total, available_bytes=kib.get("MemAvailable", kib.get("MemFree", 0)) << 10)
