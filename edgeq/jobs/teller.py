"""How far a job is, written as it goes: a few events a second at most, in a file that stays small."""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeq.errors import EdgeqError
from edgeq.files import write_bytes
from edgeq.jobs.job import Event
from edgeq.jsonable import to_json

TICK_S = 0.1
EVERY_S = 0.2  # between two events
MOST_BYTES = 1 << 20  # of the file, of which then the latest half is kept


class Teller:
    """Writes the events of a job to `path`; called as a `Progress`.

    Its clock counts only while the process runs: a suspended one has no ticks.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._active, self._told_at = 0.0, -EVERY_S
        self._latest: Event | None = None  # not yet written
        self._part = Event(0.0, 0, -1, "")  # where the present part began
        self._over = threading.Event()
        self._lock = threading.Lock()

    def __enter__(self) -> Teller:
        self._clock = threading.Thread(target=self._tick, daemon=True)
        self._clock.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._clock.join()
        self._write()

    def __call__(self, done: int, total: int, what: str, **more: Any) -> None:
        with self._lock:
            event = Event(round(self._active, 2), done, total, what, more)
            part = self._part
            if total != part.total or done < part.done or (part.done == 0 < done):
                # What a run that takes up an earlier one has by its first step is not this run's pace.
                self._part = part = event
            self._latest = replace(event, part_s=part.active_s, part_done=part.done)

    def _tick(self) -> None:
        before, worked = time.monotonic(), time.process_time()
        while not self._over.wait(TICK_S):
            now, work = time.monotonic(), time.process_time()
            gap = now - before
            if gap > 5 * TICK_S:  # a pause, a machine that slept, or work that let no thread in
                gap = min(gap, max(TICK_S, work - worked))
            with self._lock:
                self._active += gap
            before, worked = now, work
            if self._active - self._told_at >= EVERY_S:
                self._write()

    def _write(self) -> None:
        with self._lock:
            event, self._latest = self._latest, None
            if event is None:
                return
            self._told_at = self._active
        with suppress(OSError, EdgeqError):  # a full disk stops the work itself, in its words
            with self._path.open("ab") as stream:
                # After a line cut short by a kill, a new one must not go on in it.
                stream.write(b"\n" + json.dumps(to_json(event)).encode() + b"\n")
                size = stream.tell()
            if size > MOST_BYTES:
                write_bytes(self._path, self._path.read_bytes()[-MOST_BYTES // 2 :])
