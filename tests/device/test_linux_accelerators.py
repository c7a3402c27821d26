"""AMD and Intel accelerators from fake sysfs trees, and what OpenVINO says of its devices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgeq.device.accelerators import probe_accelerators
from edgeq.device.amd import highest_clock_mhz, probe_amd
from edgeq.device.intel import accelerator_from_openvino, probe_intel
from edgeq.device.spec import Accelerator, Figure

Tree = Callable[[dict[str, str]], Path]
GIB = 1 << 30
MCLK = "0: 96Mhz\n1: 456Mhz\n2: 772Mhz\n3: 1249Mhz *\n"


def pci(kind: str, vendor: str, device: str, **files: str) -> dict[str, str]:
    base = f"sys/class/{kind}/device"
    return {f"{base}/{name}": text for name, text in {"vendor": vendor, "device": device, **files}.items()}


def test_radeon_card(tree: Tree) -> None:
    files = pci(
        "drm/card1", "0x1002\n", "0x744c\n",
        mem_info_vram_total=str(24 * GIB), mem_info_vram_used=str(GIB), pp_dpm_mclk=MCLK,
        max_link_speed="16.0 GT/s PCIe", max_link_width="16",
    )  # fmt: skip
    files["sys/class/drm/card1-HDMI-A-1/device/vendor"] = "0x1002"
    files["sys/class/drm/renderD128/device/vendor"] = "0x1002"
    (card,) = probe_amd(tree(files))
    assert card.kind == "rocm"
    assert "RX 7900" in card.name
    assert (card.memory_bytes, card.available_bytes) == (24 * GIB, 23 * GIB)
    assert card.read_bandwidth is not None
    assert card.read_bandwidth.value == pytest.approx(960e9, rel=2e-3)
    assert card.link_bandwidth is not None
    assert card.link_bandwidth.value == pytest.approx(31.5e9, rel=1e-3)


def test_the_same_id_with_less_memory_has_a_narrower_bus(tree: Tree) -> None:
    files = pci("drm/card0", "0x1002", "0x744c", mem_info_vram_total=str(20 * GIB), pp_dpm_mclk=MCLK)
    (card,) = probe_amd(tree(files))
    assert card.read_bandwidth is not None
    assert card.read_bandwidth.value == pytest.approx(800e9, rel=2e-3)


def test_an_apu_shares_system_memory(tree: Tree) -> None:
    files = pci("drm/card0", "0x1002", "0x1586", mem_info_vram_total=str(GIB // 2))
    files |= pci("accel/accel0", "0x1022", "0x17f0")
    card, npu = probe_amd(tree(files))
    assert (card.memory_bytes, card.read_bandwidth, card.link_bandwidth) == (0, None, None)
    assert npu.kind == "npu"


def test_an_apu_with_much_memory_set_aside_still_shares_it(tree: Tree) -> None:
    (card,) = probe_amd(tree(pci("drm/card0", "0x1002", "0x1586", mem_info_vram_total=str(64 * GIB))))
    assert card.memory_bytes == 0


def test_an_unknown_card_has_memory_and_no_bandwidth(tree: Tree) -> None:
    files = pci("drm/card0", "0x1002", "0xffff", mem_info_vram_total=str(8 * GIB), pp_dpm_mclk=MCLK)
    (card,) = probe_amd(tree(files))
    assert (card.memory_bytes, card.read_bandwidth) == (8 * GIB, None)


def test_memory_clocks() -> None:
    assert highest_clock_mhz(MCLK) == 1249
    assert highest_clock_mhz("") == highest_clock_mhz("nonsense") == 0


def test_arc_card_takes_the_catalogs_bandwidth_and_its_own_size(tree: Tree) -> None:
    window = f"0x{0x4000000000:016x} 0x{0x4000000000 + 8 * GIB - 1:016x} 0x14220c\n0x0 0x0 0x0\n"
    (card,) = probe_intel(tree(pci("drm/card0", "0x8086", "0x56a0", resource=window)))
    assert card.kind == "intel-gpu"
    assert card.memory_bytes == 8 * GIB
    assert card.read_bandwidth is not None
    assert card.read_bandwidth.value == 560e9


def test_without_resizable_bar_the_catalogs_size_stands(tree: Tree) -> None:
    (card,) = probe_intel(tree(pci("drm/card0", "0x8086", "0xe20b", resource="0x0 0xfffffff 0x0\n")))
    assert card.memory_bytes == 12 * GIB


def test_integrated_graphics_and_npu(tree: Tree) -> None:
    files = pci("drm/card0", "0x8086", "0x64a0") | pci("accel/accel0", "0x8086", "0x643e")
    gpu, npu = probe_intel(tree(files))
    assert (gpu.kind, gpu.name, gpu.memory_bytes) == ("intel-gpu", "Intel Arc Graphics 140V", 0)
    assert (npu.kind, npu.name) == ("npu", "Intel AI Boost (Lunar Lake)")


def test_nothing_there(tmp_path: Path) -> None:
    assert probe_amd(tmp_path) == probe_intel(tmp_path) == ()


def test_openvino_properties_of_a_discrete_card() -> None:
    card = accelerator_from_openvino(
        {
            "device": "GPU.1",
            "FULL_DEVICE_NAME": "Intel(R) Arc(TM) B580 Graphics (dGPU)",
            "DEVICE_TYPE": "Type.DISCRETE",
            "GPU_DEVICE_TOTAL_MEM_SIZE": str(12 * GIB),
            "DEVICE_GOPS": {"<Type: 'float16'>": 0.0, "f16": 116736.0, "i8": 233472.0},
        }
    )
    assert (card.kind, card.memory_bytes) == ("intel-gpu", 12 * GIB)
    assert card.int8_matmul is not None
    assert card.int8_matmul.value == pytest.approx(233.472e12)


def test_openvino_properties_of_an_npu_and_of_nothing() -> None:
    npu = accelerator_from_openvino({"device": "NPU", "FULL_DEVICE_NAME": "Intel(R) AI Boost"})
    assert (npu.kind, npu.memory_bytes, npu.int8_matmul) == ("npu", 0, None)
    assert accelerator_from_openvino({}).name == "Intel device"


def test_described_and_listed_cards_become_one(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = Figure(456e9, "B/s", "spec", "catalog")
    listed = (Accelerator("intel-gpu", "Intel Arc B580", 12 * GIB, 11 * GIB, spec), Accelerator("npu", "Intel NPU"))
    described = Accelerator("intel-gpu", "Arc B580 (dGPU)", 12 * GIB, 12 * GIB)
    system = Figure(80e9, "B/s", "measured")
    monkeypatch.setattr("edgeq.device.accelerators._found", lambda bandwidth: listed)
    npu, card = probe_accelerators([described], system)
    assert (card.name, card.read_bandwidth, card.available_bytes) == ("Arc B580 (dGPU)", spec, 11 * GIB)
    assert (npu.kind, npu.read_bandwidth) == ("npu", system)
