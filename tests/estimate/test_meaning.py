"""What a device's figures are said to mean; every number of a sentence is one of the device's."""

from __future__ import annotations

from dataclasses import replace

from edgeq.device import load_device
from edgeq.device.spec import Memory
from edgeq.estimate.meaning import billions, installed, meanings, memory, used_share, weights_that_fit

GIB = 1 << 30
WORDS = ["16 billion", "1.5 billion", "300 million"]


def said(ref: str) -> dict[str, str]:
    return {m.name: f"{m.value} | {m.how} | {m.means}" for m in meanings(load_device(ref))}


def test_the_parts_of_a_board_and_what_they_mean() -> None:
    parts = said("rpi-5")
    assert list(parts) == ["Memory", "Reads", "Processor", "Graphics"]
    assert "17.1 GB/s / 4 GB = at most 4.3 tokens/s" in parts["Reads"]
    assert "from its data sheet" in parts["Reads"]
    assert "Fast at 8-bit numbers (dotprod)" in parts["Processor"]


def test_a_graphics_card_decides() -> None:
    parts = said("rtx-4090")
    assert "1008 GB/s / 4 GB = at most 252 tokens/s" in parts["Reads"]
    assert "split with the processor" in parts["Graphics"]


def test_what_is_not_measured_is_said_so() -> None:
    pi = load_device("rpi-5")
    bare = replace(pi, memory=replace(pi.memory, read_bandwidth=None), cpu=replace(pi.cpu, isa=()))
    parts = {m.name: m for m in meanings(bare, {"onnxruntime": None, "torch": "torch"})}
    assert parts["Reads"].value == "not measured"
    assert parts["Processor"].means == ""
    assert parts["Runtimes"].value == "ONNX Runtime"
    assert parts["Runtimes"].how == "not installed: PyTorch"
    assert parts["Kernels"].value == "not measured"
    assert "edgeq doctor" in installed({}).means


def test_amounts() -> None:
    assert weights_that_fit(9 * 10**9, 4.5) == 16 * 10**9
    assert [billions(n) for n in (16 * 10**9, 1_500_000_000, 300_000_000)] == [
        "16 billion",
        "1.5 billion",
        "300 million",
    ]
    assert used_share(Memory(16 * GIB, 12 * GIB)) == 0.25
    assert used_share(Memory(16 * GIB, 12 * GIB, limit_bytes=4 * GIB)) == 0.0, "what a container keeps back is not free"
    assert used_share(Memory(0, 0)) == 1.0


def test_a_container_s_limit_is_what_there_is() -> None:
    said = memory(Memory(16 * GIB, 3 * GIB, limit_bytes=4 * GIB))
    assert said.value == "1 GiB used, 3 GiB free of 4 GiB"
    assert said.how == "the container allows 4 GiB of 16 GiB"
