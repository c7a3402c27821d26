"""What is kept between runs, what is read anew, and when a measurement no longer holds."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgeq.device import cache, profile
from edgeq.device.cache import Measured, fingerprint
from edgeq.device.kernel_probe import Probed
from edgeq.device.spec import Accelerator, Cpu, Device, Figure, KernelRate, Memory

GIB = 1 << 30
CPU = Cpu("Test CPU", "x86_64", 4, 8, ("avx2",))
MEMORY = Memory(16 * GIB, 12 * GIB)
RATE = Figure(20e9, "B/s", "measured", "kernel", 0.05, "2026-01-31")
KERNEL = KernelRate("onnxruntime/cpu", "MatMulNBits-4", Figure(5e9, "weights/s", "measured", "probe"))


class Machine:
    """A machine whose parts a test can change; it counts its measurements."""

    def __init__(self) -> None:
        self.cpu, self.memory, self.load_now, self.probe_load = CPU, MEMORY, 0.1, 0.0
        self.measured: list[str] = []
        self.load, self.probed = 0.0, Probed(kernels=(KERNEL,), asked=("onnxruntime",))
        self.installed: dict[str, str | None] = {"onnxruntime": None, "llamacpp": "xllamacpp"}
        self.asked: list[tuple[str, ...]] = []

    def probe(self, timeout: float, runtimes: Sequence[str]) -> Probed:
        self.asked.append(tuple(runtimes))
        return self.probed

    def measure(self, cpu: Cpu, memory: Memory, mark: dict[str, str], **_: float) -> Measured:
        self.measured.append(cpu.name)
        notes = profile.doubts(self.load, 0.05)
        return Measured(mark, "2026-01-31", self.load, RATE, ((1, 15e9), (8, 20e9)), RATE, notes=notes)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    made = Machine()
    monkeypatch.setattr(profile, "probe_cpu", lambda: made.cpu)
    monkeypatch.setattr(profile, "machine_memory", lambda: made.memory)
    monkeypatch.setattr(profile, "measure", made.measure)
    monkeypatch.setattr(profile, "load_now", lambda: made.load_now)
    monkeypatch.setattr(profile, "probe_accelerators", lambda known, bandwidth: tuple(known))
    monkeypatch.setattr("edgeq.device.kernel_probe.probe_kernels", made.probe)
    monkeypatch.setattr("edgeq.registry.runtimes", lambda: made.installed)
    monkeypatch.setattr(profile, "OthersLoad", lambda: contextlib.nullcontext(SimpleNamespace(share=made.probe_load)))
    yield made


def kept(machine: Machine) -> Path:
    return cache.path_for(fingerprint(machine.cpu, machine.memory))


def test_the_second_time_nothing_is_measured(machine: Machine) -> None:
    first = profile.profile_device()
    assert profile.profile_device() == first
    assert len(machine.measured) == 1
    assert first.memory.read_bandwidth == RATE
    assert first.date == "2026-01-31"


def test_refresh_measures_again(machine: Machine) -> None:
    profile.profile_device()
    profile.profile_device(refresh=True)
    assert len(machine.measured) == 2


def test_free_memory_and_load_are_read_anew(machine: Machine) -> None:
    profile.profile_device()
    machine.memory = replace(MEMORY, available_bytes=3 * GIB)
    machine.load_now = 0.9
    device = profile.profile_device()
    assert device.memory.available_bytes == 3 * GIB
    assert device.load == 0.9
    assert len(machine.measured) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda m: setattr(m, "cpu", replace(CPU, name="Another CPU")),
        lambda m: setattr(m, "cpu", replace(CPU, threads=4)),
        lambda m: setattr(m, "memory", replace(MEMORY, total_bytes=32 * GIB)),
        lambda m: setattr(m, "memory", replace(MEMORY, limit_bytes=2 * GIB)),
    ],
)
def test_another_machine_or_container_is_measured(machine: Machine, change: Callable[[Machine], None]) -> None:
    profile.profile_device()
    change(machine)
    profile.profile_device()
    assert len(machine.measured) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"fingerprint": 3}', "[" * 100_000])
def test_a_corrupt_file_is_measured_anew_and_mended(machine: Machine, content: str) -> None:
    profile.profile_device()
    kept(machine).write_text(content)
    profile.profile_device()
    profile.profile_device()
    assert len(machine.measured) == 2


def test_a_figure_that_cannot_be_is_measured_anew(machine: Machine) -> None:
    profile.profile_device()
    data = json.loads(kept(machine).read_text())
    data["read_bandwidth"]["value"] = 0
    kept(machine).write_text(json.dumps(data))
    profile.profile_device()
    assert len(machine.measured) == 2


def test_a_file_copied_from_another_machine_does_not_count(machine: Machine) -> None:
    profile.profile_device()
    data = json.loads(kept(machine).read_text())
    data["fingerprint"]["cpu"] = "Another CPU"
    kept(machine).write_text(json.dumps(data))
    profile.profile_device()
    assert len(machine.measured) == 2


def test_a_home_that_cannot_be_written_only_costs_time(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDGEQ_HOME", str(tmp_path / "file"))
    profile.profile_device()
    profile.profile_device()
    assert len(machine.measured) == 2


def test_a_full_profile_adds_the_kernels_once(machine: Machine) -> None:
    assert profile.profile_device().kernels == ()
    assert profile.profile_device(quick=False).kernels == (KERNEL,)
    machine.probed = Probed()
    assert profile.profile_device(quick=False).kernels == (KERNEL,)
    assert profile.profile_device().kernels == (KERNEL,)
    assert len(machine.measured) == 1


def test_kernels_that_came_too_late_are_asked_again_by_the_full_profile(machine: Machine) -> None:
    machine.probed = Probed(kernels=(), complete=False)
    assert profile.profile_device(quick=False).kernels == ()
    machine.probed = Probed(kernels=(KERNEL,), asked=("onnxruntime",))
    assert profile.profile_device(quick=False).kernels == (KERNEL,)


def test_a_runtime_that_was_installed_since_is_asked_and_no_other(machine: Machine) -> None:
    profile.profile_device(quick=False)
    machine.installed["llamacpp"] = None
    other = replace(KERNEL, target="llamacpp/cpu", kernel="decode-Q4_0")
    machine.probed = Probed(kernels=(other,), asked=("llamacpp",))
    assert profile.glimpse()[1] == "quick"
    assert profile.profile_device(quick=False).kernels == (KERNEL, other)
    assert profile.profile_device(quick=False).kernels == (KERNEL, other)
    assert machine.asked == [("onnxruntime",), ("llamacpp",)]
    assert profile.glimpse()[1] == "full"
    assert len(machine.measured) == 1


def test_only_the_runtimes_that_are_wanted_are_asked(machine: Machine) -> None:
    machine.installed["llamacpp"] = None
    profile.profile_device(quick=False, runtimes=("onnxruntime", "openvino"))
    machine.probed = Probed(asked=("llamacpp",))
    profile.profile_device(quick=False)
    assert machine.asked == [("onnxruntime",), ("llamacpp",)]


def test_refresh_measures_the_kernels_again(machine: Machine) -> None:
    profile.profile_device(quick=False)
    better = replace(KERNEL, figure=replace(KERNEL.figure, value=9e9))
    machine.probed = Probed(kernels=(better,), asked=("onnxruntime",))
    assert profile.profile_device(quick=False, refresh=True).kernels == (better,)
    assert profile.profile_device().kernels == (better,)


def test_a_measurement_under_load_warns_until_a_full_profile_finds_it_quiet(machine: Machine) -> None:
    machine.load = 0.5
    assert "other programs took 50%" in profile.profile_device().warnings[0]
    assert "other programs took 50%" in profile.profile_device().warnings[0]
    machine.load = 0.0
    assert profile.profile_device(quick=False).warnings == ()
    assert profile.profile_device().warnings == ()


def test_kernels_probed_under_load_warn_too(machine: Machine) -> None:
    machine.probe_load = 0.4
    assert "other programs took 40%" in profile.profile_device(quick=False).warnings[0]


def test_a_busier_repetition_does_not_replace_the_kept_one(machine: Machine) -> None:
    machine.load = 0.3
    profile.profile_device(quick=False)
    machine.load = 0.8
    assert "30%" in profile.profile_device(quick=False).warnings[0]


def test_a_cuda_chip_without_memory_of_its_own_shares_the_systems(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile, "probe_accelerators", lambda known, bandwidth: (Accelerator("cuda", "Orin"),))
    assert profile.profile_device().memory.unified
    card = Accelerator("cuda", "RTX", memory_bytes=8 * GIB)
    monkeypatch.setattr(profile, "probe_accelerators", lambda known, bandwidth: (card,))
    assert not profile.profile_device().memory.unified


def test_the_real_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The true probes with short windows: a whole Device, no vendor library needed."""
    monkeypatch.setattr("edgeq.device.bandwidth.SMALLEST_BUFFER", 64 << 20)
    device: Device = profile.profile_device()
    assert device.origin == "local"
    assert device.memory.read_bandwidth is not None
    assert device.memory.read_bandwidth.value > 1e8
    assert device.cpu.fp32_matmul is not None
    assert 0 < device.memory.usable_bytes <= device.memory.total_bytes
    again = profile.profile_device()
    assert again.memory.read_bandwidth == device.memory.read_bandwidth


def test_a_glimpse_measures_nothing_and_says_what_is_kept(machine: Machine) -> None:
    bare, standing = profile.glimpse()
    assert (standing, bare.memory.read_bandwidth, machine.measured) == ("none", None, [])
    profile.profile_device()
    known, standing = profile.glimpse()
    assert (standing, known.memory.read_bandwidth) == ("quick", RATE)
    profile.profile_device(quick=False)
    assert profile.glimpse()[1] == "full"
    assert len(machine.measured) == 1
