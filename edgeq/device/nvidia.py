"""NVIDIA graphics cards through NVML: memory, its bandwidth, compute capability, peak rates, PCIe."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgeq.device.link import pcie_rate
from edgeq.device.spec import Accelerator, Figure
from edgeq.device.text import read_text

# Dense fp16 tensor operations per SM and clock with fp32 accumulation (a multiply-add is two), by compute capability,
# and CUDA cores per SM. From NVIDIA's architecture whitepapers (Volta, Turing, GA100, GA102, Orin, Ada, Hopper,
# Blackwell); data-sheet peaks follow from it, e.g. A100: 2048 x 108 SMs x 1.41 GHz = 312 TFLOPS.
FP16_PER_SM = {
    (7, 0): (1024, 64),
    (7, 5): (1024, 64),
    (8, 0): (2048, 64),
    (8, 6): (1024, 128),
    (8, 7): (2048, 128),
    (8, 9): (1024, 128),
    (9, 0): (4096, 128),
    (10, 0): (8192, 128),
    (12, 0): (1024, 128),
}
# https://developer.nvidia.com/cuda-gpus
JETSONS = {"Orin": "8.7", "Xavier": "7.2", "TX2": "6.2", "Nano": "5.3"}
CLOCK_SM, CLOCK_MEM = 1, 2  # nvml.h: nvmlClockType_t


def probe_nvidia() -> tuple[Accelerator, ...]:
    """All NVIDIA cards; none where there is no driver."""
    if not _driver_present():
        return jetson()
    try:
        import pynvml
    except ImportError:
        return jetson()
    return read_nvml(pynvml) or jetson()


def jetson(root: Path = Path("/")) -> tuple[Accelerator, ...]:
    """The GPU of a Jetson board, which NVML does not tell of everywhere: by the device tree's model name."""
    model = read_text(root / "proc/device-tree/model").strip("\0\n ")
    if "Jetson" not in model:
        return ()
    capability = next((cc for chip, cc in JETSONS.items() if chip in model), None)
    return (Accelerator("cuda", f"{model} GPU", compute_capability=capability),)


def _driver_present() -> bool:
    """Looked for before NVML is imported, which costs a plan on other machines its import time."""
    if sys.platform == "win32":
        return Path(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "nvml.dll").exists()
    return any(Path(p).exists() for p in ("/dev/nvidiactl", "/proc/driver/nvidia/version", "/dev/dxg"))


def read_nvml(nvml: Any) -> tuple[Accelerator, ...]:
    """The cards that `nvml` (the pynvml module, or one that answers like it) tells of."""
    try:
        nvml.nvmlInit()
    except Exception:  # NVML's own error classes: no library, no driver, a version mismatch
        return ()
    try:
        driver = _text(_ask(nvml.nvmlSystemGetDriverVersion))
        count = _ask(nvml.nvmlDeviceGetCount) or 0
        handles = [_ask(nvml.nvmlDeviceGetHandleByIndex, i) for i in range(count)]
        return tuple(_card(nvml, handle, driver) for handle in handles if handle is not None)
    finally:
        with suppress(Exception):
            nvml.nvmlShutdown()


def _card(nvml: Any, handle: Any, driver: str) -> Accelerator:
    name = _text(_ask(nvml.nvmlDeviceGetName, handle)) or "NVIDIA GPU"
    memory = _ask(nvml.nvmlDeviceGetMemoryInfo, handle)  # unsupported where the GPU shares system memory (Jetson)
    capability = _ask(nvml.nvmlDeviceGetCudaComputeCapability, handle)
    cores = _ask(nvml.nvmlDeviceGetNumGpuCores, handle) or 0
    sm_mhz = _ask(nvml.nvmlDeviceGetMaxClockInfo, handle, CLOCK_SM) or 0
    fp16, int8 = peak_rates(name, capability, cores, sm_mhz)
    generation = _ask(nvml.nvmlDeviceGetMaxPcieLinkGeneration, handle) or 0
    width = _ask(nvml.nvmlDeviceGetMaxPcieLinkWidth, handle) or 0
    return Accelerator(
        kind="cuda",
        name=name if name.startswith("NVIDIA") else f"NVIDIA {name}",
        memory_bytes=int(memory.total) if memory else 0,
        available_bytes=int(memory.free) if memory else 0,
        read_bandwidth=memory_bandwidth(
            _ask(nvml.nvmlDeviceGetMemoryBusWidth, handle) or 0,
            _ask(nvml.nvmlDeviceGetMaxClockInfo, handle, CLOCK_MEM) or 0,
        ),
        fp16_matmul=fp16,
        int8_matmul=int8,
        compute_capability=f"{capability[0]}.{capability[1]}" if capability else None,
        link_bandwidth=pcie_rate(generation, width),
        driver=driver,
    )


def memory_bandwidth(bus_bits: int, clock_mhz: int) -> Figure | None:
    """Bus width x clock x 2 (NVML gives half the data rate of GDDR and HBM: 10501 MHz is 21 Gbit/s), in bytes/s."""
    if bus_bits <= 0 or clock_mhz <= 0:
        return None
    return Figure(bus_bits / 8 * clock_mhz * 2e6, "B/s", "spec", f"NVML: {bus_bits} bit x {clock_mhz} MHz x 2")


def peak_rates(
    name: str, capability: tuple[int, int] | None, cores: int, sm_mhz: int
) -> tuple[Figure | None, Figure | None]:
    """Peak dense fp16 (fp32 accumulation) and int8 tensor rates at the highest SM clock.

    GeForce cards since Ampere accumulate in fp32 at half the rate of their professional siblings; int8 is not halved.
    """
    row = FP16_PER_SM.get(tuple(capability)) if capability else None  # type: ignore[arg-type]
    if row is None or not cores or not sm_mhz:
        return None, None
    per_sm, cores_per_sm = row
    rate = per_sm * (cores // cores_per_sm) * sm_mhz * 1e6
    source = f"tensor cores of compute capability {capability[0]}.{capability[1]}, {sm_mhz} MHz" if capability else ""
    halved = "GeForce" in name and (capability or (0, 0)) >= (8, 6)
    return Figure(rate / 2 if halved else rate, "FLOP/s", "spec", source), Figure(2 * rate, "OP/s", "spec", source)


def _ask(function: Callable[..., Any], *arguments: Any) -> Any:
    """A query's answer, or None where this card or driver does not support it."""
    try:
        return function(*arguments)
    except Exception:  # every NVML error has its own class, made at run time
        return None


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")
