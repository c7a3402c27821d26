"""A worker process, watched: the events it prints, its memory, and what else kept the machine busy meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil

from edgeq.device.load import busy_seconds
from edgeq.errors import EdgeqError

Event = dict[str, Any]
SAMPLE_S = 0.02


@dataclass(frozen=True, slots=True)
class Watched:
    """What a worker said last, and what was seen from outside.

    Attributes:
        result: the event that holds the key `result`.
        sampled_peak_bytes: highest resident memory seen from outside, every 20 ms; a lower bound of the true peak.
        others: share (0..1) of the machine's processors that neither the worker nor this process used.
    """

    result: Any
    sampled_peak_bytes: int
    others: float


def run_worker(module: str, request: Any, on_event: Callable[[Event], None] = lambda _: None) -> Watched:
    """Run `python -m module REQUEST`, where the request is one JSON argument; its stdout is JSON lines.

    Raises:
        EdgeqError: the worker says so in an `error` event, or dies (its last line on stderr is quoted).
    """
    # -P: in a checkout the folder `edgeq` of the current directory is not the installed package, which has more in it.
    command = [sys.executable, "-P", "-m", module, json.dumps(request)]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as stderr:
        with _Usage() as usage, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as worker:
            try:
                usage.watch(worker.pid)
                result = _read_events(worker, on_event)
            except BaseException:
                worker.kill()
                raise
        if result is None:
            stderr.seek(0)
            raise _died(worker.returncode, stderr.read())
    return Watched(result["result"], usage.peak_bytes, usage.others(float(result.get("cpu_s", 0.0))))


def _read_events(worker: subprocess.Popen[str], on_event: Callable[[Event], None]) -> Event | None:
    assert worker.stdout is not None  # a pipe, by construction
    for line in worker.stdout:
        try:
            event = json.loads(line)
        except ValueError:
            continue  # a library that prints
        if not isinstance(event, dict):
            continue
        if "error" in event:
            raise EdgeqError(event["error"], where=event.get("where"), hint=event.get("hint"))
        if "result" in event:
            return event
        on_event(event)
    return None


def _died(code: int, stderr: str) -> EdgeqError:
    said = [line.strip() for line in stderr.splitlines() if line.strip()]
    if code in (-9, 137):
        return EdgeqError("the worker was killed, most likely for want of memory", hint="Free memory and try again")
    return EdgeqError(f"the worker stopped with {code}: {said[-1][:200] if said else 'no message'}")


def cpu_count() -> int:
    return psutil.cpu_count() or os.cpu_count() or 1


def others_now(seconds: float = 0.3) -> float:
    """The share of the machine's processors busy with other work right now, over a short wait."""
    with _Usage() as usage:
        time.sleep(seconds)
    return usage.others(0.0)


class _Usage:
    """Processor time of the whole machine and of this process over a block, and a watched child's memory."""

    peak_bytes = 0

    def __enter__(self) -> _Usage:
        self._stop = threading.Event()
        self._sampler: threading.Thread | None = None
        self._start = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        self._end = self._now()
        self._stop.set()
        if self._sampler:
            self._sampler.join()

    def watch(self, pid: int) -> None:
        self._sampler = threading.Thread(target=self._sample, args=(pid,), daemon=True)
        self._sampler.start()

    def others(self, worker_cpu_s: float) -> float:
        wall, busy, own = (after - before for before, after in zip(self._start, self._end, strict=True))
        return min(1.0, max(0.0, (busy - own - worker_cpu_s) / max(wall * cpu_count(), 1e-9)))

    def _sample(self, pid: int) -> None:
        try:
            process = psutil.Process(pid)
            while not self._stop.wait(SAMPLE_S):
                self.peak_bytes = max(self.peak_bytes, process.memory_info().rss)
        except psutil.Error:
            return  # it ended

    @staticmethod
    def _now() -> tuple[float, float, float]:
        return time.perf_counter(), busy_seconds(psutil.cpu_times()), time.process_time()
