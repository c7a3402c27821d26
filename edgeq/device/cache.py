"""What was measured, kept between runs: one small file a machine fingerprint."""

from __future__ import annotations

import hashlib
import json
import math
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgeq.device.load_ref import figures
from edgeq.device.spec import Accelerator, Cpu, Figure, KernelRate, Memory
from edgeq.errors import EdgeqError
from edgeq.files import write_json
from edgeq.jsonable import from_json, to_json
from edgeq.store import cache_home

VERSION = 2  # raise it when a measurement changes its meaning: older files are then measured anew


@dataclass(frozen=True, slots=True)
class Measured:
    """Measurements that take time, and the machine they are of.

    `complete` says that the vendors' libraries and the runtimes named in `asked` were, which only a full profile does.
    """

    fingerprint: dict[str, str]
    date: str
    load: float
    read_bandwidth: Figure | None = None
    bandwidth_by_threads: tuple[tuple[int, float], ...] = ()
    fp32_matmul: Figure | None = None
    kernels: tuple[KernelRate, ...] = ()
    accelerators: tuple[Accelerator, ...] = ()  # those that only a vendor's library describes
    notes: tuple[str, ...] = ()  # what made the measurement doubtful
    asked: tuple[str, ...] = ()  # runtimes that were to measure their kernels, also those that could not
    complete: bool = False


def fingerprint(cpu: Cpu, memory: Memory) -> dict[str, str]:
    """What must not change for a measurement to hold: processor, usable cores, memory, container limits."""
    return {
        "version": str(VERSION),
        "cpu": cpu.name,
        "cores": f"{cpu.cores}/{cpu.threads}",
        "memory": str(memory.total_bytes >> 20),
        "limit": str(memory.limit_bytes),
        "threads": next((os.environ[n] for n in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS") if n in os.environ), ""),
    }


def folder() -> Path:
    """Where the measurements are kept."""
    return cache_home() / "profile"


def path_for(mark: dict[str, str]) -> Path:
    digest = hashlib.sha256(json.dumps(mark, sort_keys=True).encode()).hexdigest()[:16]
    return folder() / f"{digest}.json"


def read(mark: dict[str, str]) -> Measured | None:
    """The measurements of the machine with this fingerprint, or None: none yet, unreadable, or another's."""
    try:
        measured = from_json(Measured, json.loads(path_for(mark).read_text()))
    except (OSError, ValueError, RecursionError, EdgeqError):
        return None
    sound = all(math.isfinite(f.value) and f.value > 0 for f in figures(measured))
    return measured if sound and measured.fingerprint == mark else None


def write(measured: Measured) -> None:
    """Keep it; a folder that can't be written only means that the next run measures again."""
    with suppress(EdgeqError):
        write_json(path_for(measured.fingerprint), to_json(measured))
