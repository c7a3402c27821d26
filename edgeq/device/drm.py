"""Graphics cards and NPUs as Linux lists them under `/sys/class/drm` and `/sys/class/accel`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeq.device.text import read_text

AMD, INTEL = "0x1002", "0x8086"


@dataclass(frozen=True, slots=True)
class PciDevice:
    folder: Path
    vendor: str  # as in sysfs: 0x1002
    device: str


def graphics_cards(root: Path, vendor: str) -> Iterator[PciDevice]:
    yield from _devices(root / "sys/class/drm", r"card\d+", {vendor})


def neural_processors(root: Path, vendors: set[str]) -> Iterator[PciDevice]:
    yield from _devices(root / "sys/class/accel", r"accel\d+", vendors)


def _devices(folder: Path, pattern: str, vendors: set[str]) -> Iterator[PciDevice]:
    """Connectors such as `card0-HDMI-A-1` lie beside the cards and are left out by the pattern."""
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    for entry in found:
        if re.fullmatch(pattern, entry.name):
            device = entry / "device"
            ids = [read_text(device / name).strip().lower() for name in ("vendor", "device")]
            if ids[0] in vendors:
                yield PciDevice(device, ids[0], ids[1])


def largest_bar_bytes(device: PciDevice) -> int:
    """The largest memory window: all of the card's memory where resizable BAR is on.

    Lines of `resource` are `start end flags` in hexadecimal.
    """
    sizes = [0]
    for line in read_text(device.folder / "resource").splitlines():
        try:
            start, end = (int(field, 16) for field in line.split()[:2])
        except ValueError:
            continue
        sizes.append(end - start + 1 if end else 0)
    return max(sizes)
