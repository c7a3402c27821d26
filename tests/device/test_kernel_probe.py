"""Runtimes are probed in a process of their own; a bad one takes nothing with it."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from edgeq.device import kernel_probe
from edgeq.device.kernel_probe import Probed, parse_lines, probe_kernels, runtime_rates
from edgeq.device.spec import Figure, KernelRate
from edgeq.errors import EdgeqError
from edgeq.jsonable import to_json

KERNEL = KernelRate("onnxruntime/cpu", "MatMulNBits-4", Figure(5e9, "weights/s", "measured", "probe"))
LINE = json.dumps(to_json(Probed(kernels=(KERNEL,)))).encode()


def test_lines_of_libraries_and_cut_lines_are_skipped() -> None:
    output = b"a library says hello\n" + LINE + b"\n{}\n[1]\n" + LINE[:40]
    assert parse_lines(output, complete=True).kernels == (KERNEL,)


def test_a_late_probe_keeps_what_came_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*_: Any, **__: Any) -> None:
        raise subprocess.TimeoutExpired("probe", 1.0, output=LINE + b"\n")

    monkeypatch.setattr(subprocess, "run", late)
    assert probe_kernels(1.0, ["a"]) == Probed(kernels=(KERNEL,), complete=False)


def test_a_crash_is_not_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    crash = subprocess.CompletedProcess("probe", -11, LINE + b"\n", b"")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: crash)
    assert probe_kernels(1.0, ["a"]) == Probed(kernels=(KERNEL,), complete=False)


class Runtime:
    def __init__(self, missing: str | None = None, fault: Exception | None = None) -> None:
        self._missing, self._fault = missing, fault

    def missing(self) -> str | None:
        return self._missing

    def probe(self) -> list[KernelRate]:
        if self._fault:
            raise self._fault
        return [KERNEL]


@pytest.mark.parametrize(
    ("runtime", "rates"),
    [
        (Runtime(), (KERNEL,)),
        (Runtime(missing="pip install onnxruntime"), ()),
        (Runtime(fault=ImportError("no module")), ()),
        (Runtime(fault=RuntimeError("illegal instruction")), ()),
        (object(), ()),
    ],
)
def test_a_runtime_that_cannot_measure_has_no_kernels(
    monkeypatch: pytest.MonkeyPatch, runtime: object, rates: tuple[KernelRate, ...]
) -> None:
    monkeypatch.setattr("edgeq.registry.runtime", lambda name: runtime)
    assert runtime_rates("any") == rates


def test_an_uninstalled_runtime(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def absent(name: str) -> None:
        raise EdgeqError(f"no runtime named {name}")

    monkeypatch.setattr("edgeq.registry.runtime", absent)
    monkeypatch.setattr(kernel_probe, "openvino_properties", list)
    kernel_probe.main(["a", "b"])
    out, err = capsys.readouterr()
    assert parse_lines(out.encode(), complete=True) == Probed(asked=("a", "b"))
    assert "no runtime named a" in err


def test_every_runtimes_answer_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("edgeq.registry.runtime", lambda name: Runtime())
    monkeypatch.setattr(kernel_probe, "openvino_properties", list)
    kernel_probe.main(["a", "b"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3  # the last tells of the vendors' libraries
    assert parse_lines("\n".join(lines).encode(), complete=True) == Probed(kernels=(KERNEL, KERNEL), asked=("a", "b"))
