"""The folders of jobs: what is asked, how far it is, how it ended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from edgeq.errors import EdgeqError
from edgeq.files import write_json
from edgeq.jobs.job import Event, Failure, Job
from edgeq.jsonable import from_json, to_json
from edgeq.store import home

JOB, EVENTS, RESULT, ERROR, PROCESS, CANCELLED, LOG, LOCK, SPARE = (
    "job.json",
    "events.jsonl",
    "result.json",
    "error.json",
    "process.json",
    "cancelled",
    "log.txt",
    "lock",
    "spare",
)
_TAIL = 1 << 14  # bytes that are read of a long file of events to see its end


def shelf() -> Path:
    return home() / "jobs"


def folder_of(job: Job) -> Path:
    return shelf() / job.id


def put(job: Job) -> None:
    """Raises:
    EdgeqError: the place can't be written.
    """
    write_json(folder_of(job) / JOB, to_json(job))


def all_jobs(kind: str | None = None) -> list[Job]:
    """Every job that is kept, oldest first; damaged ones are left out."""
    found = [job for path in sorted(_folders()) if (job := _read(path)) is not None]
    return [job for job in found if kind in (None, job.kind)]


def find_job(job_id: str) -> Job | None:
    """The job with this id, or the only one whose id begins so."""
    found = [job for job in all_jobs() if job.id == job_id] or [j for j in all_jobs() if j.id.startswith(job_id)]
    return found[0] if len(found) == 1 else None


def events(folder: Path) -> list[Event]:
    """The events that are kept, the latest last; lines that a kill cut short are skipped."""
    return [event for line in _lines(folder, None) if (event := _event(line)) is not None]


def latest(folder: Path) -> Event | None:
    """The last event, without a reading of all of them."""
    found = (_event(line) for line in reversed(_lines(folder, _TAIL)))
    return next((event for event in found if event is not None), None)


def _lines(folder: Path, most: int | None) -> list[bytes]:
    """The lines of the file of events, or of its last `most` bytes."""
    try:
        with (folder / EVENTS).open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(0 if most is None else max(0, size - most))
            return [line for line in stream.read().splitlines() if line]
    except OSError:
        return []


def failure(folder: Path) -> Failure | None:
    data = load(folder / ERROR)
    try:
        return None if data is None else from_json(Failure, data)
    except EdgeqError:
        return Failure("the job failed, and what it said of it can't be read", where=str(folder / ERROR))


def log_of(job: Job) -> str:
    """The end of what the job's process printed."""
    try:
        with (folder_of(job) / LOG).open("rb") as stream:
            stream.seek(max(0, stream.seek(0, 2) - _TAIL))
            return stream.read().decode("utf-8", "replace").strip()
    except OSError:
        return ""


def load(path: Path) -> Any:
    """The JSON of a file; None: there is none, or it can't be read."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _folders() -> Iterator[Path]:
    try:
        yield from (p for p in shelf().iterdir() if p.is_dir())
    except OSError:
        return


def _read(path: Path) -> Job | None:
    try:
        return _parsed(path, (path / JOB).stat().st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=1024)  # windows look at the list each second, and what is asked of a job never changes
def _parsed(path: Path, changed_ns: int) -> Job | None:
    try:
        job = from_json(Job, load(path / JOB))
    except EdgeqError:
        return None
    return job if job.id == path.name else None


def _event(line: bytes) -> Event | None:
    try:
        return from_json(Event, json.loads(line))
    except (ValueError, RecursionError, EdgeqError):
        return None
