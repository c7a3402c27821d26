"""AMD graphics through sysfs (the amdgpu driver's files are described in the kernel's gpu/amdgpu documentation)."""

from __future__ import annotations

import re
from pathlib import Path

from edgeq.device.drm import AMD, PciDevice, graphics_cards, neural_processors
from edgeq.device.link import pcie_rate
from edgeq.device.spec import Accelerator, Figure
from edgeq.device.text import read_int, read_text

GIB = 1 << 30
# PCI id -> name, transfers per memory clock, bus width by GiB of memory. sysfs gives the clock but not the width.
# GDDR6 moves 16 bits a pin and clock as the driver counts it (1249 MHz is 20 Gbit/s), HBM3 4 (1300 MHz is 5.2).
CARDS: dict[str, tuple[str, int, dict[int, int]]] = {
    "0x744c": ("AMD Radeon RX 7900", 16, {24: 384, 20: 320, 16: 256}),
    "0x747e": ("AMD Radeon RX 7800 XT / 7700 XT", 16, {16: 256, 12: 192}),
    "0x7550": ("AMD Radeon RX 9070", 16, {16: 256}),
    "0x74a1": ("AMD Instinct MI300X", 4, {192: 8192}),
    "0x1586": ("AMD Radeon 8060S", 0, {}),
    "0x15bf": ("AMD Radeon 780M", 0, {}),
    "0x163f": ("AMD Steam Deck GPU", 0, {}),
}
NPU_VENDORS = {"0x1022", AMD}
OWN_MEMORY = 2 * GIB  # an APU sets aside less than this and uses system memory for the rest


def probe_amd(root: Path = Path("/")) -> tuple[Accelerator, ...]:
    """AMD cards and NPUs that Linux lists; none elsewhere."""
    cards = [_card(device) for device in graphics_cards(root, AMD)]
    npus = [Accelerator("npu", "AMD XDNA NPU") for _ in neural_processors(root, NPU_VENDORS)]
    return (*cards, *npus)


def _card(device: PciDevice) -> Accelerator:
    total = read_int(device.folder / "mem_info_vram_total") or 0
    used = read_int(device.folder / "mem_info_vram_used") or 0
    name, transfers, widths = CARDS.get(device.device, ("AMD GPU", 0, {}))
    own = total if total >= OWN_MEMORY and (widths or device.device not in CARDS) else 0
    return Accelerator(
        kind="rocm",
        name=read_text(device.folder / "product_name").strip() or f"{name} ({device.device})",
        memory_bytes=own,
        available_bytes=max(0, own - used) if own else 0,
        read_bandwidth=_bandwidth(device, transfers, widths.get(round(total / GIB), 0)),
        link_bandwidth=_link(device) if own else None,
    )


def _bandwidth(device: PciDevice, transfers: int, bus_bits: int) -> Figure | None:
    clock = highest_clock_mhz(read_text(device.folder / "pp_dpm_mclk"))
    if not (clock and transfers and bus_bits):
        return None
    source = f"sysfs: {bus_bits} bit x {clock} MHz x {transfers}"
    return Figure(bus_bits / 8 * clock * transfers * 1e6, "B/s", "spec", source)


def highest_clock_mhz(text: str) -> int:
    """Of `pp_dpm_mclk`'s lines `3: 1249Mhz *`."""
    return max((int(mhz) for mhz in re.findall(r"^\d+:\s*(\d+)\s*mhz", text, re.MULTILINE | re.IGNORECASE)), default=0)


def _link(device: PciDevice) -> Figure | None:
    speed = re.match(r"([\d.]+)", read_text(device.folder / "max_link_speed"))
    generations = {2.5: 1, 5.0: 2, 8.0: 3, 16.0: 4, 32.0: 5, 64.0: 6}
    return pcie_rate(
        generations.get(float(speed[1]), 0) if speed else 0, read_int(device.folder / "max_link_width") or 0
    )
