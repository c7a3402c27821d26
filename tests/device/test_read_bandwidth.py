"""The bandwidth measurement's arithmetic; no test asserts a time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from edgeq.device import bandwidth
from edgeq.device.bandwidth import MIB, buffer_bytes, kernels, measure_bandwidth, summarize, thread_counts
from edgeq.device.load import OthersLoad, busy_seconds, load_now
from edgeq.device.matmul import measure_fp32_matmul
from edgeq.device.profile import doubts


def test_the_buffer_is_far_larger_than_the_last_cache() -> None:
    plenty = 1 << 40
    assert buffer_bytes(0, plenty) == 256 * MIB
    assert buffer_bytes(32 * MIB, plenty) == 256 * MIB
    assert buffer_bytes(128 * MIB, plenty) == 512 * MIB
    assert buffer_bytes(1152 * MIB, plenty) == 2048 * MIB
    assert buffer_bytes(32 * MIB, 512 * MIB) == 128 * MIB


def test_no_figure_rather_than_the_caches() -> None:
    assert measure_bandwidth(1, last_cache_bytes=32 * MIB, available_bytes=200 * MIB) is None
    assert measure_bandwidth(1, available_bytes=100 * MIB) is None
    assert "too little free memory" in doubts(0.0, None, measured=False)[0]


@pytest.mark.parametrize(("threads", "counts"), [(1, (1,)), (2, (1, 2)), (8, (1, 4, 8)), (64, (1, 4, 32, 64))])
def test_thread_counts(threads: int, counts: tuple[int, ...]) -> None:
    assert thread_counts(threads) == counts


def test_median_and_spread_of_the_best_thread_count() -> None:
    found = summarize({1: [10e9, 12e9, 11e9], 2: [18e9, 20e9, 25e9]}, "kernel over 256 MiB")
    assert found.by_threads == ((1, 11e9), (2, 20e9))
    assert found.best.value == 20e9
    assert found.best.spread == pytest.approx((25 - 18) / 2 / 20, abs=1e-3)
    assert found.best.basis == "measured"
    assert found.best.date
    assert "2 threads, 3 windows" in found.best.source


def test_every_kernel_reads_the_whole_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    part = np.full(4097, bandwidth.FILL, np.uint8)
    for name, kernel in kernels().items():
        if name == "memchr":
            assert not kernel(part)
            part[4096] = bandwidth.ABSENT
            assert kernel(part) == part.ctypes.data + 4096  # it had come to the last byte
        else:
            part[4092:4096] = 0x7F
            assert kernel(part) == 0x7F7F7F7F
        part[:] = bandwidth.FILL


@pytest.mark.parametrize(
    ("first", "second", "chosen"), [(1.0, 0.9, "first"), (1.0, 0.5, "second"), (1.0, 2.0, "first")]
)
def test_only_a_clearly_faster_kernel_replaces_the_first(
    monkeypatch: pytest.MonkeyPatch, first: float, second: float, chosen: str
) -> None:
    times = {len: first, sum: second}
    monkeypatch.setattr(bandwidth, "kernels", lambda: {"first": len, "second": sum})
    monkeypatch.setattr(bandwidth, "_pass_seconds", lambda buffer, kernel, threads, pool: times[kernel])
    with ThreadPoolExecutor(1) as pool:
        assert bandwidth.fastest_kernel(np.zeros(1, np.uint8), 1, pool)[0] == chosen


def test_every_page_is_written_before_it_is_read() -> None:
    with ThreadPoolExecutor(2) as pool:
        buffer = bandwidth.filled_buffer(10_001, 2, pool)
    assert buffer.size == 10_001
    assert (buffer == bandwidth.FILL).all()


def test_a_measurement_has_three_windows_of_each_count_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandwidth, "SMALLEST_BUFFER", 32 * MIB)
    found = measure_bandwidth(2, seconds=0.0)
    assert found is not None
    assert [count for count, _ in found.by_threads] == [1, 2]
    assert found.best.value == max(rate for _, rate in found.by_threads) > 0
    assert "3 windows" in found.best.source


def test_a_loaded_machine_and_a_wide_spread_are_said() -> None:
    assert doubts(0.0, 0.1) == ()
    (note,) = doubts(0.6, 0.1)
    assert note.startswith("other programs took 60% of the machine while it was measured")
    assert "edgeq profile --refresh" in note
    assert "varied by ±40%" in doubts(0.0, 0.4)[0]


def test_others_load_leaves_this_process_out(monkeypatch: pytest.MonkeyPatch) -> None:
    # 4 processors, 2 seconds: others worked 4 of 8 processor seconds, this process 1.
    samples = iter([(10.0, 100.0, 5.0), (12.0, 105.0, 6.0)])
    monkeypatch.setattr("edgeq.device.load._sample", lambda: next(samples))
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    with OthersLoad() as others:
        pass
    assert others.share == pytest.approx(0.5)


def test_load_now_is_a_share_of_all_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr("os.getloadavg", lambda: (1.0, 0.0, 0.0), raising=False)
    assert load_now() == 0.25
    monkeypatch.setattr("os.getloadavg", lambda: (99.0, 0.0, 0.0), raising=False)
    assert load_now() == 1.0
    monkeypatch.delattr("os.getloadavg")
    assert load_now() is None


def test_busy_time_counts_stolen_time_and_not_idle() -> None:
    class Times:
        user, system, idle, iowait, steal = 5.0, 2.0, 100.0, 50.0, 1.0

    assert busy_seconds(Times()) == 8.0


def test_fp32_rate_is_two_operations_a_multiply_add(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(np.arange(0.0, 100.0, 0.5).tolist())
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks))
    found = measure_fp32_matmul(seconds=1.0, size=8)
    assert found.value == pytest.approx(2 * 8**3 / 0.5)
    assert found.spread == 0.0
