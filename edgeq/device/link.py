"""PCI Express: bytes a second of a link, one way."""

from __future__ import annotations

import re

from edgeq.device.spec import Figure

# Generation -> (10^9 transfers a second per lane, payload share of the line code). PCI-SIG base specifications;
# generation 6 sends 242 of 256 bytes of a flit as payload.
GENERATIONS = {
    1: (2.5, 8 / 10),
    2: (5.0, 8 / 10),
    3: (8.0, 128 / 130),
    4: (16.0, 128 / 130),
    5: (32.0, 128 / 130),
    6: (64.0, 242 / 256),
}


def pcie_rate(generation: int, width: int) -> Figure | None:
    """Bytes/s one way before packet headers, or None for a generation unknown here."""
    if generation not in GENERATIONS or width <= 0:
        return None
    transfers, share = GENERATIONS[generation]
    return Figure(transfers * 1e9 * share * width / 8, "B/s", "spec", f"PCIe {generation}.0 x{width}")


def link_rate(text: str) -> Figure | None:
    """The rate of a link written as `pcie4x16`."""
    match = re.fullmatch(r"pcie(\d)x(\d+)", text)
    return pcie_rate(int(match[1]), int(match[2])) if match else None
