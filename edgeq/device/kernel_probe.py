"""Run the installed runtimes' probes in a process of their own: `python -m edgeq.device.kernel_probe NAME...`.

The profiling process thereby never imports a runtime, and a runtime that crashes or hangs takes nothing with it.
Each finished probe is one JSON line on standard output, so that what came before a time limit is not lost.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgeq import registry
from edgeq.device.intel import accelerator_from_openvino, openvino_properties
from edgeq.device.spec import Accelerator, KernelRate
from edgeq.errors import EdgeqError
from edgeq.jsonable import from_json, to_json


@dataclass(frozen=True, slots=True)
class Probed:
    """`complete` is False when the time was up before every runtime had answered; `asked` are those that had."""

    kernels: tuple[KernelRate, ...] = ()
    accelerators: tuple[Accelerator, ...] = ()
    asked: tuple[str, ...] = ()
    complete: bool = True


def probe_kernels(timeout: float, runtimes: Sequence[str]) -> Probed:
    """Kernel rates of these runtimes, and what OpenVINO knows of GPUs and NPUs."""
    command = [sys.executable, "-P", "-m", "edgeq.device.kernel_probe", *runtimes]  # -P: see edgeq.measure.process
    quiet = {**os.environ, "PYTHONWARNINGS": "ignore"}
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout, stdin=subprocess.DEVNULL, env=quiet)
    except subprocess.TimeoutExpired as late:
        return parse_lines(late.stdout or b"", complete=False)
    except OSError:
        return Probed(complete=False)
    return parse_lines(done.stdout, complete=done.returncode == 0)


def parse_lines(output: bytes, *, complete: bool) -> Probed:
    """What the lines of the probe say; a line that is cut off or comes from a library is skipped."""
    kernels: list[KernelRate] = []
    accelerators: list[Accelerator] = []
    asked: list[str] = []
    for line in output.decode(errors="replace").splitlines():
        try:
            part = from_json(Probed, json.loads(line))
        except (ValueError, RecursionError, EdgeqError):
            continue
        kernels += part.kernels
        accelerators += part.accelerators
        asked += part.asked
    return Probed(tuple(kernels), tuple(accelerators), tuple(asked), complete)


def runtime_rates(name: str) -> tuple[KernelRate, ...]:
    """One runtime's kernels; none where it is not installed, or can't measure here."""
    try:
        runtime: Any = registry.runtime(name)
        if runtime.missing():
            return ()
        return tuple(runtime.probe())
    except Exception as error:  # a plug-in's fault must not end the others' measurements
        print(f"{name}: {error}", file=sys.stderr)
        return ()


def main(runtimes: Sequence[str]) -> None:
    for name in runtimes:
        _say(Probed(kernels=runtime_rates(name), asked=(name,)))
    _say(Probed(accelerators=tuple(accelerator_from_openvino(values) for values in openvino_properties())))


def _say(probed: Probed) -> None:
    print(json.dumps(to_json(probed)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
