"""Measured arithmetic rate of the processor: what bounds prefill.

fp32 by numpy's BLAS. numpy has no integer matrix product worth timing; a runtime's own probe gives int8 rates.
"""

from __future__ import annotations

import os
import statistics
import time

import numpy as np

from edgeq.device.load import today
from edgeq.device.spec import Figure

SIZE = 768  # 0.9 GFLOP: long enough to start every thread, under 0.1 s on a Raspberry Pi


def measure_fp32_matmul(*, seconds: float = 0.15, size: int = SIZE) -> Figure:
    """FLOP/s of a (size, size) x (size, size) float32 product with the threads BLAS takes: 2 size^3 operations."""
    random = np.random.default_rng(0)
    left, right = (random.standard_normal((size, size), dtype=np.float32) for _ in range(2))
    out = left @ right  # starts the threads and touches the output
    rates: list[float] = []
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or len(rates) < 3:
        start = time.perf_counter()
        np.matmul(left, right, out=out)
        rates.append(2 * size**3 / (time.perf_counter() - start))
    median = statistics.median(rates)
    spread = (max(rates) - min(rates)) / 2 / median
    return Figure(median, "FLOP/s", "measured", f"numpy sgemm {size}{_thread_note()}", round(spread, 3), today())


def _thread_note() -> str:
    """A thread limit in the environment binds BLAS, so the figure says so."""
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        if os.environ.get(name):
            return f", {name}={os.environ[name]}"
    return ""
