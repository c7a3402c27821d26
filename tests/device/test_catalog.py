"""Every entry of the catalog: parses, has its sources, and its arithmetic holds."""

from __future__ import annotations

from typing import Any

import pytest

from edgeq.device import load_device
from edgeq.device.catalog import entries, names
from edgeq.device.isa import ARM, X86
from edgeq.device.spec import Device
from edgeq.errors import EdgeqError
from edgeq.jsonable import from_json, to_json

GIB = 1 << 30
# The words of a plan's users; the catalog may grow, these stay.
EXPECTED = """
m1 m1-pro m1-max m2 m3 m3-pro m3-max m4 m4-pro m4-max rtx-3060 rtx-3090 rtx-4060 rtx-4070 rtx-4080 rtx-4090
rtx-5070 rtx-5080 rtx-5090 a100-80gb h100 h200 l4 t4 rx-7900-xtx ryzen-ai-max-395 arc-a770 arc-b580 core-ultra-7-155h
core-ultra-7-258v snapdragon-x-elite snapdragon-8-gen-3 snapdragon-8-elite pixel-8 pixel-9 iphone-15-pro iphone-16-pro
galaxy-s24 rpi-4 rpi-5 jetson-orin-nano jetson-agx-orin orange-pi-5 steam-deck ddr4-desktop ddr5-desktop epyc-9654"""


def test_the_expected_devices_are_there() -> None:
    assert set(EXPECTED.split()) <= set(names())
    assert len(names()) >= 40


@pytest.mark.parametrize("name", names())
def test_entry_is_a_device(name: str) -> None:
    device = load_device(name)
    assert device.origin == "catalog"
    assert from_json(Device, to_json(device)) == device
    assert device.memory.read_bandwidth is not None
    assert 0 < device.memory.available_bytes < device.memory.total_bytes
    assert set(device.cpu.isa) <= {*X86, *ARM}
    assert device.cpu.isa
    assert ("neon" in device.cpu.isa) == (device.cpu.arch == "aarch64")
    assert device.cpu.cores <= device.cpu.threads
    for accelerator in device.accelerators:
        assert accelerator.read_bandwidth is not None
        assert accelerator.available_bytes <= accelerator.memory_bytes


def figures(name: str) -> list[dict[str, Any]]:
    return [entries()[name], *entries()[name].get("accelerators", [])]


@pytest.mark.parametrize("name", names())
def test_every_figure_has_a_source(name: str) -> None:
    for part in figures(name):
        if "host" in part:
            assert entries()[part["host"]]["source"]
            continue
        assert len(part["source"]) > 8
        if "fp16_tflops" in part or "int8_tops" in part:
            assert len(part["rate_source"]) > 8
        if "fp32_gflop_s" in part:
            assert len(part["fp32_source"]) > 8


@pytest.mark.parametrize("name", names())
def test_bandwidth_is_bus_width_times_rate(name: str) -> None:
    """Vendors round down: Apple calls 204.8 GB/s 200."""
    for part in figures(name):
        if "bus_bits" in part:
            assert part["bandwidth_gb_s"] == pytest.approx(part["bus_bits"] * part["mt_s"] / 8000, rel=0.03)


def test_a_graphics_card_sits_in_its_host() -> None:
    device = load_device("rtx-4090")
    assert device.accelerators[0].memory_bytes == 24 * GIB
    assert device.memory == load_device("ddr5-desktop").memory
    assert any("Desktop PC" in w for w in device.warnings)


def test_unified_memory_of_an_apple_chip() -> None:
    device = load_device("m1-pro-32gb")
    assert device.memory.unified
    assert device.memory.total_bytes == 32 * GIB
    assert device.memory.gpu_limit_bytes == 32 * GIB * 2 // 3
    assert device.memory.read_bandwidth is not None
    assert device.memory.read_bandwidth.value == 200e9
    assert device.accelerators[0].memory_bytes == 0


def test_facts_that_others_rest_on() -> None:
    pi = load_device("rpi-5").memory.read_bandwidth
    assert pi is not None
    assert pi.value == 17.07e9
    assert load_device("jetson-orin-nano").accelerators[0].compute_capability == "8.7"


@pytest.mark.parametrize("spelling", ["RTX 4090", "rtx_4090", " rtx-4090 "])
def test_spelling_is_forgiven(spelling: str) -> None:
    assert load_device(spelling).name == "NVIDIA GeForce RTX 4090"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [("rtx-409", "Did you mean rtx-4090"), ("m1-pro-99gb", "m1-pro-16gb, m1-pro-32gb"), ("qqqq", "profile --list")],
)
def test_unknown_names_get_the_near_ones(wrong: str, said: str) -> None:
    with pytest.raises(EdgeqError, match=said):
        load_device(wrong)
