"""Intel GPUs and NPUs: their presence from sysfs, their properties from OpenVINO where it is installed.

OpenVINO is asked in a process of its own (`kernel_probe`), so that a plan never imports it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from edgeq.device.drm import INTEL, PciDevice, graphics_cards, largest_bar_bytes, neural_processors
from edgeq.device.spec import Accelerator, Figure

GIB = 1 << 30
# PCI ids of the kernel's include/drm/intel/pciids.h; cards of the catalog take its bandwidth and rates.
CARDS = {"0x56a0": "arc-a770", "0xe20b": "arc-b580"}
INTEGRATED = {"0x7d55": "Intel Arc Graphics (Meteor Lake)", "0x64a0": "Intel Arc Graphics 140V"}
NPUS = {"0x7d1d": "Intel AI Boost (Meteor Lake)", "0x643e": "Intel AI Boost (Lunar Lake)"}


def probe_intel(root: Path = Path("/")) -> tuple[Accelerator, ...]:
    """Intel GPUs and NPUs that Linux lists; none elsewhere."""
    cards = [_card(device) for device in graphics_cards(root, INTEL)]
    npus = [
        Accelerator("npu", NPUS.get(device.device, f"Intel NPU ({device.device})"))
        for device in neural_processors(root, {INTEL})
    ]
    return (*cards, *npus)


def _card(device: PciDevice) -> Accelerator:
    if device.device not in CARDS:
        return Accelerator("intel-gpu", INTEGRATED.get(device.device, f"Intel GPU ({device.device})"))
    from edgeq.device.catalog import catalog_device  # read only where there is such a card

    card = catalog_device(CARDS[device.device]).accelerators[0]
    window = largest_bar_bytes(device)
    # Variants with other sizes carry the same id; without resizable BAR the window is 256 MiB and says nothing.
    size = window if window >= 4 * GIB else card.memory_bytes
    return dataclasses.replace(card, memory_bytes=size, available_bytes=int(size * 0.95))


def openvino_properties() -> list[dict[str, Any]]:
    """OpenVINO's GPU and NPU devices as plain values. Imports openvino: only for the probe's own process."""
    try:
        import openvino
    except ImportError:
        return []
    core = openvino.Core()
    found = []
    for device in core.available_devices:
        if device.startswith(("GPU", "NPU")):
            found.append({"device": device, **_properties(core, device)})
    return found


def _properties(core: Any, device: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in ("FULL_DEVICE_NAME", "DEVICE_TYPE", "GPU_DEVICE_TOTAL_MEM_SIZE", "NPU_DRIVER_VERSION", "DEVICE_GOPS"):
        try:
            value = core.get_property(device, name)
        except Exception:  # OpenVINO raises RuntimeError and its own types for what a device does not have
            continue
        values[name] = {str(k): float(v) for k, v in value.items()} if isinstance(value, Mapping) else str(value)
    return values


def accelerator_from_openvino(values: Mapping[str, Any]) -> Accelerator:
    """One device by its properties. `DEVICE_GOPS` holds 10^9 operations a second by element type."""
    kind: Literal["intel-gpu", "npu"] = "npu" if str(values.get("device", "")).startswith("NPU") else "intel-gpu"
    discrete = "discrete" in str(values.get("DEVICE_TYPE", "")).lower()
    size = str(values.get("GPU_DEVICE_TOTAL_MEM_SIZE", "0"))
    memory = int(size) if discrete and size.isdigit() else 0
    return Accelerator(
        kind=kind,
        name=str(values.get("FULL_DEVICE_NAME") or values.get("device") or "Intel device"),
        memory_bytes=memory,
        available_bytes=int(memory * 0.95),
        fp16_matmul=_gops(values, "f16", "FLOP/s"),
        int8_matmul=_gops(values, "i8", "OP/s"),
        driver=str(values.get("NPU_DRIVER_VERSION", "")),
    )


def _gops(values: Mapping[str, Any], element: str, unit: str) -> Figure | None:
    table = values.get("DEVICE_GOPS")
    rates = table if isinstance(table, Mapping) else {}
    for name, rate in rates.items():
        if element in str(name) and isinstance(rate, (int, float)) and rate > 0:
            return Figure(rate * 1e9, unit, "spec", "OpenVINO: DEVICE_GOPS")
    return None
