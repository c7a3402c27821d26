"""How busy the machine is with other work: a measurement on a busy machine says too little."""

from __future__ import annotations

import datetime
import os
import time
from types import TracebackType
from typing import Any

# What counts as work. Linux counts guests within user; Windows counts interrupts within system.
BUSY_FIELDS = ("user", "nice", "system", "irq", "softirq", "steal")
BUSY = 0.15  # share of the machine taken by others above which a measurement is doubtful


def today() -> str:
    return datetime.date.today().isoformat()


class OthersLoad:
    """The share of the machine (0..1) that others took while the block ran, this process and its children left out.

    Other machines on the same host show only as stolen time, so a low share is no promise.
    """

    share: float = 0.0

    def __enter__(self) -> OthersLoad:
        self._wall, self._busy, self._own = _sample()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        wall, busy, own = _sample()
        capacity = (wall - self._wall) * (os.cpu_count() or 1)
        self.share = min(1.0, max(0.0, (busy - self._busy - (own - self._own)) / max(capacity, 1e-9)))


def busy_seconds(times: Any) -> float:
    """Processor seconds spent on work since boot, from psutil's `cpu_times()`."""
    return float(sum(getattr(times, field, 0.0) for field in BUSY_FIELDS))


def load_now() -> float | None:
    """The load average of the last minute over the processors (0..1), or None where the system keeps none."""
    average = getattr(os, "getloadavg", None)  # Windows has none
    try:
        return None if average is None else min(1.0, float(average()[0]) / (os.cpu_count() or 1))
    except OSError:
        return None


def _sample() -> tuple[float, float, float]:
    import psutil

    children = os.times()  # of processes that have ended; Windows does not tell
    own = time.process_time() + children.children_user + children.children_system
    return time.perf_counter(), busy_seconds(psutil.cpu_times()), own
