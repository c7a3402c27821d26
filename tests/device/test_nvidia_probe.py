"""NVML's answers turned into an accelerator, from a module that answers like pynvml."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeq.device.nvidia import jetson, memory_bandwidth, peak_rates, read_nvml


class NotSupported(Exception):
    """As pynvml's errors: a class of its own."""


def fake_nvml(**changes: Any) -> Any:
    """An RTX 4090 as driver 560 describes it; a change of None makes that query unsupported."""
    answers: dict[str, Any] = {
        "nvmlInit": None,
        "nvmlShutdown": None,
        "nvmlSystemGetDriverVersion": "560.35.03",
        "nvmlDeviceGetCount": 1,
        "nvmlDeviceGetHandleByIndex": "handle",
        "nvmlDeviceGetName": "NVIDIA GeForce RTX 4090",
        "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=24564 << 20, free=23000 << 20),
        "nvmlDeviceGetMemoryBusWidth": 384,
        "nvmlDeviceGetCudaComputeCapability": (8, 9),
        "nvmlDeviceGetNumGpuCores": 16384,
        "nvmlDeviceGetMaxPcieLinkGeneration": 4,
        "nvmlDeviceGetMaxPcieLinkWidth": 16,
    }
    clocks = {1: 2520, 2: 10501}

    def function(name: str, value: Any) -> Any:
        def call(*_: Any) -> Any:
            if name in changes and changes[name] is None:
                raise NotSupported(name)
            return changes.get(name, value)

        return call

    made = SimpleNamespace(**{name: function(name, value) for name, value in answers.items()})
    made.nvmlDeviceGetMaxClockInfo = lambda handle, kind: clocks[kind]
    return made


def test_a_card_with_everything() -> None:
    (card,) = read_nvml(fake_nvml())
    assert card.kind == "cuda"
    assert card.name == "NVIDIA GeForce RTX 4090"
    assert (card.memory_bytes, card.available_bytes) == (24564 << 20, 23000 << 20)
    assert card.read_bandwidth is not None
    assert card.read_bandwidth.value == pytest.approx(1008.1e9, rel=1e-3)
    assert card.read_bandwidth.basis == "spec"
    assert card.fp16_matmul is not None
    assert card.fp16_matmul.value == pytest.approx(165.2e12, rel=0.01)
    assert card.int8_matmul is not None
    assert card.int8_matmul.value == pytest.approx(660.6e12, rel=0.01)
    assert (card.compute_capability, card.driver) == ("8.9", "560.35.03")
    assert card.link_bandwidth is not None
    assert card.link_bandwidth.value == pytest.approx(31.5e9, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "capability", "cores", "mhz", "fp16", "int8"),
    [
        ("NVIDIA A100-SXM4-80GB", (8, 0), 6912, 1410, 312e12, 624e12),
        ("Tesla T4", (7, 5), 2560, 1590, 65e12, 130e12),
        ("NVIDIA L4", (8, 9), 7424, 2040, 121e12, 242e12),
        ("NVIDIA GeForce RTX 3090", (8, 6), 10496, 1695, 71e12, 284e12),
        ("NVIDIA GeForce RTX 5090", (12, 0), 21760, 2407, 209.5e12, 838e12),
        ("NVIDIA H100 80GB HBM3", (9, 0), 16896, 1830, 989e12, 1979e12),
    ],
)
def test_peak_rates_are_those_of_the_data_sheets(
    name: str, capability: tuple[int, int], cores: int, mhz: int, fp16: float, int8: float
) -> None:
    found = peak_rates(name, capability, cores, mhz)
    assert [f.value for f in found if f] == pytest.approx([fp16, int8], rel=0.01)


@pytest.mark.parametrize(
    ("bus", "mhz", "bandwidth"), [(5120, 1593, 2039e9), (256, 5001, 320e9), (192, 7501, 360e9), (6144, 3201, 4917e9)]
)
def test_bus_width_times_twice_the_clock(bus: int, mhz: int, bandwidth: float) -> None:
    found = memory_bandwidth(bus, mhz)
    assert found is not None
    assert found.value == pytest.approx(bandwidth, rel=2e-3)


def test_a_chip_that_shares_memory_answers_less() -> None:
    gone = {
        "nvmlDeviceGetMemoryInfo": None,
        "nvmlDeviceGetMemoryBusWidth": None,
        "nvmlDeviceGetNumGpuCores": None,
        "nvmlDeviceGetMaxPcieLinkGeneration": None,
        "nvmlDeviceGetName": b"Orin (nvgpu)",
    }
    (card,) = read_nvml(fake_nvml(**gone))
    assert card.name == "NVIDIA Orin (nvgpu)"
    assert (card.memory_bytes, card.read_bandwidth, card.fp16_matmul, card.link_bandwidth) == (0, None, None, None)


def test_an_unknown_compute_capability_has_no_peak() -> None:
    assert peak_rates("NVIDIA Future", (99, 0), 1024, 2000) == (None, None)


def test_no_driver_is_normal() -> None:
    assert read_nvml(_without_driver()) == ()
    assert read_nvml(fake_nvml(nvmlDeviceGetCount=0)) == ()


def _without_driver() -> Any:
    def init() -> None:
        raise NotSupported("NVML Shared Library Not Found")

    return SimpleNamespace(nvmlInit=init)


def test_a_jetson_without_nvml(tmp_path: Path) -> None:
    assert jetson(tmp_path) == ()
    model = tmp_path / "proc/device-tree/model"
    model.parent.mkdir(parents=True)
    model.write_text("NVIDIA Jetson Orin Nano Developer Kit\0")
    (gpu,) = jetson(tmp_path)
    assert (gpu.name, gpu.compute_capability) == ("NVIDIA Jetson Orin Nano Developer Kit GPU", "8.7")
    model.write_text("Raspberry Pi 5 Model B Rev 1.0\0")
    assert jetson(tmp_path) == ()


def test_a_plan_imports_no_vendor_library() -> None:
    code = (
        "import sys; from edgeq.device import profile_device; import edgeq.device.profile, edgeq.device.catalog;"
        "from edgeq.device.accelerators import probe_accelerators; probe_accelerators((), None);"
        "print([m for m in ('torch', 'transformers', 'onnxruntime', 'openvino', 'onnx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
