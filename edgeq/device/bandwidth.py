"""Measured read bandwidth of main memory: what bounds the decoding of a language model.

Decoding reads every weight once a token and writes almost nothing, so the kernel only reads. Two kernels that
need no compiler are tried and the faster one is used: libc's `memchr` looking for a byte that is not there, and
numpy's maximum over int32. Both are vector loops that let go of the interpreter lock.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.device.load import today
from edgeq.device.spec import Figure

Bytes = npt.NDArray[np.uint8]
Kernel = Callable[[Bytes], Any]

MIB = 1 << 20
SMALLEST_BUFFER = 256 * MIB
LARGEST_BUFFER = 2048 * MIB
CLEARLY = 0.85  # a kernel that takes less than this share of another's time is clearly faster
FILL = 1  # every page is written, so that none is the kernel's shared page of zeros
ABSENT = 2  # a byte that is nowhere in the buffer


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """The figure of the best thread count (bytes/s) and the median of each."""

    best: Figure
    by_threads: tuple[tuple[int, float], ...]


def measure_bandwidth(
    threads: int, *, last_cache_bytes: int = 0, available_bytes: int = 1 << 40, seconds: float = 0.8
) -> Bandwidth | None:
    """Read a buffer far larger than the last-level cache with 1 to `threads` threads, in rounds of short windows.

    Args:
        threads: processors this process may use.
        last_cache_bytes: size of all last-level caches together.
        available_bytes: memory that may be taken; at most a quarter of it is.
        seconds: time for the windows, not counting the filling of the buffer.

    Returns None where not even a buffer twice the cache can be had: no figure is better than the cache's.
    """
    size = buffer_bytes(last_cache_bytes, available_bytes)
    if size < 2 * last_cache_bytes or size < 32 * MIB:
        return None
    counts = thread_counts(threads)
    with ThreadPoolExecutor(max(counts)) as pool:
        buffer = filled_buffer(size, max(counts), pool)
        name, kernel = fastest_kernel(buffer, max(counts), pool)
        rates = measure_rounds(buffer, kernel, counts, pool, seconds)
    return summarize(rates, f"{name} over {size // MIB} MiB")


def buffer_bytes(last_cache_bytes: int, available_bytes: int) -> int:
    """Four times the last-level cache, within 256 MiB and 2 GiB, and at most a quarter of what is free."""
    wanted = min(max(SMALLEST_BUFFER, 4 * last_cache_bytes), LARGEST_BUFFER)
    return min(wanted, available_bytes // 4) // MIB * MIB


def thread_counts(threads: int) -> tuple[int, ...]:
    """One, half and all of them, and four: memory controllers are often saturated by a few cores."""
    return tuple(sorted({n for n in (1, min(4, threads), threads // 2, threads) if n >= 1}))


def filled_buffer(size: int, parts: int, pool: ThreadPoolExecutor) -> Bytes:
    """Memory that is really there, first touched by the threads that read it (matters on several sockets)."""
    buffer = np.empty(size, np.uint8)
    list(pool.map(lambda part: part.fill(FILL), np.array_split(buffer, parts)))
    return buffer


def kernels() -> dict[str, Kernel]:
    """The read kernels that this machine has, by name."""
    found: dict[str, Kernel] = {"numpy int32 maximum": lambda part: np.max(part[: part.size & ~3].view(np.int32))}
    try:
        libc = ctypes.CDLL("msvcrt") if sys.platform == "win32" else ctypes.CDLL(None)
        memchr = libc.memchr
    except (OSError, AttributeError, TypeError):
        return found
    memchr.restype = ctypes.c_void_p
    memchr.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
    return {"memchr": lambda part: memchr(part.ctypes.data, ABSENT, part.nbytes), **found}


def fastest_kernel(buffer: Bytes, threads: int, pool: ThreadPoolExecutor) -> tuple[str, Kernel]:
    """By the better of three passes each, in turns. The first one named stays unless another is clearly faster, so
    that a passing load does not choose."""
    choices = kernels()
    seconds = dict.fromkeys(choices, float("inf"))
    for _ in range(3):
        for name, kernel in choices.items():
            seconds[name] = min(seconds[name], _pass_seconds(buffer, kernel, threads, pool))
    first, best = next(iter(seconds)), min(seconds, key=lambda n: seconds[n])
    name = best if seconds[best] < CLEARLY * seconds[first] else first
    return name, choices[name]


def measure_rounds(
    buffer: Bytes, kernel: Kernel, counts: Sequence[int], pool: ThreadPoolExecutor, seconds: float
) -> dict[int, list[float]]:
    """Bytes/s of each window by thread count. The counts take turns, so that a passing load meets all alike."""
    rates: dict[int, list[float]] = {count: [] for count in counts}
    window = seconds / (8 * len(counts))
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or any(len(r) < 3 for r in rates.values()):
        for count, seen in rates.items():
            seen.append(_window_rate(buffer, kernel, count, pool, window))
    return rates


def summarize(rates: dict[int, list[float]], how: str) -> Bandwidth:
    """Median of each thread count; the best one's figure, with half its range over the median as the spread."""
    medians = {count: statistics.median(seen) for count, seen in rates.items()}
    best = max(medians, key=lambda count: medians[count])
    seen = rates[best]
    spread = (max(seen) - min(seen)) / 2 / medians[best]
    noun = "thread" if best == 1 else "threads"
    figure = Figure(
        medians[best], "B/s", "measured", f"{how}, {best} {noun}, {len(seen)} windows", round(spread, 3), today()
    )
    return Bandwidth(figure, tuple(medians.items()))


def _window_rate(buffer: Bytes, kernel: Kernel, threads: int, pool: ThreadPoolExecutor, seconds: float) -> float:
    passes, spent = 0, 0.0
    while not passes or spent < seconds:
        spent += _pass_seconds(buffer, kernel, threads, pool)
        passes += 1
    return passes * buffer.nbytes / spent


def _pass_seconds(buffer: Bytes, kernel: Kernel, threads: int, pool: ThreadPoolExecutor) -> float:
    parts = np.array_split(buffer, threads)
    start = time.perf_counter()
    if threads == 1:
        kernel(buffer)
    else:
        list(pool.map(kernel, parts))
    return time.perf_counter() - start
