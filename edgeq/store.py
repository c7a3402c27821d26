"""The local store of measurements, which the next plan reads.

One JSON line a benchmark, appended under a lock, so that two processes never tear each other's lines. A line that
can't be read (a killed process, a full disk, a later schema) is skipped and counted, never an error. Importing this
module costs next to nothing: the plan reads it on every call.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from edgeq.benchmark import Benchmark, device_key
from edgeq.device.spec import Device
from edgeq.errors import EdgeqError
from edgeq.jsonable import from_json, to_json

SCHEMA = 1


def home() -> Path:
    """Where edgeq keeps what it learned: `$EDGEQ_HOME`, else the platform's user data folder."""
    if given := os.environ.get("EDGEQ_HOME"):
        return Path(given).expanduser()
    import platformdirs

    return Path(platformdirs.user_data_dir("edgeq", appauthor=False))


def cache_home() -> Path:
    """Where edgeq keeps what it can fetch or make again: `$EDGEQ_HOME/cache`, else the user cache folder."""
    if given := os.environ.get("EDGEQ_HOME"):
        return Path(given).expanduser() / "cache"
    import platformdirs

    return Path(platformdirs.user_cache_dir("edgeq", appauthor=False))


class Store:
    """Benchmarks kept on this machine.

    Args:
        path: the file; by default `benchmarks.jsonl` in `home()`.

    Attributes:
        skipped: lines that the last reading could not use.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path if path is not None else home() / "benchmarks.jsonl"
        self.skipped = 0

    def add(self, benchmark: Benchmark) -> None:
        """Append one benchmark: the whole line or nothing.

        Raises:
            EdgeqError: the store's place can't be written.
        """
        line = json.dumps({"schema": SCHEMA, "benchmark": to_json(benchmark)}, ensure_ascii=False, allow_nan=False)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o644)
            try:
                with _locked(handle):
                    _append(handle, line.encode() + b"\n")
            finally:
                os.close(handle)
        except OSError as error:
            raise EdgeqError(
                f"cannot keep the measurement: {error.strerror or error}",
                where=self.path,
                hint="Free space, set EDGEQ_HOME, or add --no-store",
            ) from error

    def benchmarks(
        self,
        *,
        device: Device | str | None = None,
        target: str | None = None,
        scheme: str | None = None,
        model: str | None = None,
    ) -> list[Benchmark]:
        """Stored benchmarks, oldest first, of one device (a `Device` or its `device_key`), target, scheme, model.

        An absent or unreadable file is an empty store; `skipped` then counts the lines that were damaged.
        """
        key = device_key(device) if isinstance(device, Device) else device
        wanted = {"device": key, "target": target, "scheme": scheme, "model": model}
        wanted = {name: value for name, value in wanted.items() if value is not None}
        return [b for b in self._read() if all(getattr(b, name) == value for name, value in wanted.items())]

    def _read(self) -> list[Benchmark]:
        self.skipped = 0
        try:
            lines = self.path.read_bytes().splitlines()
        except OSError:
            return []
        found = []
        for line in lines:
            if not line.strip():
                continue
            benchmark = _parse(line)
            if benchmark is None:
                self.skipped += 1
            else:
                found.append(benchmark)
        return found


def _parse(line: bytes) -> Benchmark | None:
    try:
        raw: Any = json.loads(line)
        if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
            return None
        return from_json(Benchmark, raw.get("benchmark"))
    except (EdgeqError, ValueError, RecursionError):
        return None


def _append(handle: int, data: bytes) -> None:
    """Write at the end; what was left by a torn write is closed with a newline, what tears now is taken back."""
    end = os.lseek(handle, 0, os.SEEK_END)
    if end:
        os.lseek(handle, end - 1, os.SEEK_SET)
        if os.read(handle, 1) != b"\n":
            data = b"\n" + data
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(handle, left) :]
        os.fsync(handle)
    except OSError:
        with suppress(OSError):
            os.ftruncate(handle, end)
        raise


@contextmanager
def _locked(handle: int) -> Iterator[None]:
    """An exclusive lock on the open file, held by no one else while the block runs."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(handle, 0, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_LOCK, 1)
        try:
            yield
        finally:
            os.lseek(handle, 0, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(handle, fcntl.LOCK_UN)
