"""Devices written by hand, and a plan that reads no store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edgeq.device.spec import Accelerator, Cpu, Device, Figure, Memory
from edgeq.model.read import read_model
from edgeq.plan import Plan, Request, make_plan
from edgeq.plan.expected import Experience

GIB = 2**30


def laptop(gib: float = 16, bandwidth: float | None = 50e9, os: str = "Linux 6.1", **more: Any) -> Device:
    memory = Memory(int(gib * GIB), int(gib * GIB), Figure(bandwidth, "B/s", "measured") if bandwidth else None)
    cpu = Cpu("a processor", "x86_64", 8, 8, fp32_matmul=Figure(4e11, "FLOP/s", "measured"))
    return Device("laptop", "file", os, cpu, memory, **more)


def with_card(vram_gib: float, gib: float = 32) -> Device:
    size = int(vram_gib * GIB)
    card = Accelerator(
        "cuda", "card", size, size, Figure(1000e9, "B/s", "spec"), Figure(150e12, "FLOP/s", "spec"), None, "8.9"
    )
    return laptop(gib, accelerators=(card,))


def plan(device: Device, model: str, benchmarks: tuple[Any, ...] = (), **request: Any) -> Plan:
    return make_plan(device, read_model(model), Request(**request), Experience(device, benchmarks))


@pytest.fixture
def make() -> Callable[..., Plan]:
    return plan


@pytest.fixture
def laptop_of() -> Callable[..., Device]:
    return laptop


@pytest.fixture
def card_of() -> Callable[..., Device]:
    return with_card
