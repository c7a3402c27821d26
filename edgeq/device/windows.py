"""The processor on Windows: the registry for its name, the kernel and archspec for its extensions."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Callable

from edgeq.device.cpu import ARCHES, archspec_host
from edgeq.device.isa import known_isa
from edgeq.device.spec import Cpu

# Arguments of IsProcessorFeaturePresent (processthreadsapi.h, winnt.h).
FEATURES = {19: "neon", 39: "avx", 40: "avx2", 41: "avx512f", 43: "dotprod"}


def probe_windows_cpu() -> Cpu:
    import psutil

    micro, features = archspec_host()
    arch = ARCHES.get(platform.machine().lower(), platform.machine().lower())
    threads = os.cpu_count() or 1
    return Cpu(
        name=registry_name() or platform.processor() or arch,
        arch=arch,
        cores=psutil.cpu_count(logical=False) or threads,
        threads=threads,
        isa=known_isa(features | kernel_features(_feature_present())),
        microarchitecture=micro,
    )


def registry_name() -> str:
    """The name the firmware gave, or an empty string."""
    if sys.platform != "win32":
        return ""
    import winreg

    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"HARDWARE\DESCRIPTION\System\CentralProcessor\0") as key:
            return str(winreg.QueryValueEx(key, "ProcessorNameString")[0]).strip()
    except OSError:
        return ""


def kernel_features(present: Callable[[int], object] | None) -> frozenset[str]:
    """Extensions that `present(number)` confirms."""
    return frozenset(name for number, name in FEATURES.items() if present is not None and present(number))


def _feature_present() -> Callable[[int], object] | None:
    kernel = getattr(ctypes, "windll", None)
    return None if kernel is None else kernel.kernel32.IsProcessorFeaturePresent
