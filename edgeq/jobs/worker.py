"""The process of a job: `python -m edgeq.jobs.worker FOLDER`. Says how far it is, and how it ended."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from edgeq.errors import EdgeqError
from edgeq.files import write_json
from edgeq.jobs import shelf
from edgeq.jobs.job import Event, Failure, Job
from edgeq.jsonable import from_json, to_json

EVERY_S = 0.25  # a file of events grows by about a megabyte an hour
TICK_S = 0.1


def main() -> None:
    """Do the work of the job's folder."""
    folder = Path(sys.argv[1])
    signal.signal(signal.SIGTERM, _terminate)
    job = from_json(Job, shelf.load(folder / shelf.JOB), folder / shelf.JOB)
    with suppress(EdgeqError), _alone(folder):
        _do(job, folder)


def _do(job: Job, folder: Path) -> None:
    from edgeq.jobs.work import KINDS

    try:
        with Teller(folder) as teller:
            result = KINDS[job.kind](job.request, teller)
        write_json(folder / shelf.RESULT, to_json(result))
    except KeyboardInterrupt:
        return  # whoever cancelled it has noted that
    except EdgeqError as error:
        write_json(folder / shelf.ERROR, to_json(Failure(error.what, error.where, error.hint)))
    except MemoryError:
        failure = Failure("out of memory", hint="Choose a smaller model or close other programs")
        write_json(folder / shelf.ERROR, to_json(failure))
    except Exception as error:
        what = f"unexpected {type(error).__name__}: {error}"
        hint = "A fault of edgeq's: please report it with the trace"
        write_json(folder / shelf.ERROR, to_json(Failure(what, hint=hint, trace=traceback.format_exc())))


class Teller:
    """Writes the events of a job; called as a `Progress`.

    Its clock counts only while the process runs: a suspended one has no ticks.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / shelf.EVENTS
        self._active, self._told_at, self._told_what = 0.0, -1.0, ""
        self._latest: Event | None = None
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
            self._latest = Event(round(self._active, 2), done, total, what, more)
        if what != self._told_what or self._active - self._told_at >= EVERY_S or more:
            self._write()

    def _tick(self) -> None:
        before = time.monotonic()
        while not self._over.wait(TICK_S):
            now = time.monotonic()
            # A longer gap is a pause, or a machine that slept.
            self._active += min(now - before, 10 * TICK_S)
            before = now

    def _write(self) -> None:
        with self._lock:
            event, self._latest = self._latest, None
            if event is None:
                return
            self._told_at, self._told_what = event.active_s, event.what
            with suppress(OSError), self._path.open("ab") as stream:  # a full disk stops the work itself, in its words
                stream.write(b"\n" + json.dumps(to_json(event)).encode() + b"\n")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the job; a second process of the same job leaves at once.

    Raises:
        EdgeqError: another one has it.
    """
    with (folder / shelf.LOCK).open("wb") as lock:
        try:
            import fcntl

            fcntl.flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # not a POSIX system: there the work's own locks have to do
            pass
        except OSError as error:
            raise EdgeqError("another process does this job", where=folder) from error
        yield


def _terminate(*_: object) -> NoReturn:
    """Leave as after Ctrl-C: what is half-written is removed on the way out."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
