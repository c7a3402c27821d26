"""Start, look at, pause, resume, cancel and forget jobs."""

from __future__ import annotations

import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from edgeq.errors import EdgeqError
from edgeq.files import cannot_write, write_json
from edgeq.jobs import process, shelf
from edgeq.jobs.job import LIVE, Event, Job, Look, State

WORKER = "edgeq.jobs.worker"
_PATIENCE_S = 5.0  # that a cancelled process has to tidy up


def start(kind: str, request: dict[str, Any], title: str) -> Job:
    """Begin a piece of work in a process of its own, which goes on when this one ends.

    Raises:
        EdgeqError: the jobs' place can't be written.
    """
    now = datetime.now(UTC)
    name = f"{now:%Y%m%d-%H%M%S-%f}-{kind}-{uuid.uuid4().hex[:4]}"
    job = Job(name, kind, request, title, now.isoformat("T", "seconds"), cwd=str(Path.cwd()))
    try:
        shelf.put(job)
        _launch(job)
    except EdgeqError:
        shutil.rmtree(shelf.folder_of(job), ignore_errors=True)
        raise
    return job


def look(job: Job) -> Look:
    """The job as it is now. A few milliseconds: small files and the system's processes are read."""
    folder = shelf.folder_of(job)
    last = shelf.latest(folder)
    worker = _worker(folder)
    if worker is None:
        return _ended(job, folder, last)
    try:
        state: State = "paused" if worker.status() == psutil.STATUS_STOPPED else "running"
        rss = process.rss_of(worker)
    except psutil.Error:
        return _ended(job, folder, last)
    return Look(job, state, last, rss)


def pause(job: Job) -> None:
    """Suspend the job's processes; they keep their memory. Nothing happens to one that does not run."""
    worker = _worker(shelf.folder_of(job))
    if worker is not None:
        process.suspend(worker)


def resume(job: Job) -> None:
    """Let a paused job go on; begin one anew that ended without a result: its work takes up what is finished.

    Nothing happens to one that runs.

    Raises:
        EdgeqError: the job is done, or its place can't be written.
    """
    seen = look(job)
    if seen.state in LIVE:  # one that seems to run, too: it may have been told to stop and not have got to it
        worker = _worker(shelf.folder_of(job))
        if worker is not None:
            process.let_go_on(worker)
    elif seen.state == "done":
        raise EdgeqError("this job is done", where=job.title)
    else:
        _launch(job)


def cancel(job: Job) -> None:
    """End the job's processes. What it had finished stays where it is, and `resume` goes on from there."""
    folder = shelf.folder_of(job)
    pid, born = _noted(folder)
    worker = _worker(folder)
    if worker is None:
        return
    with suppress(EdgeqError):  # a full disk: it ends all the same
        write_json(folder / shelf.CANCELLED, {"at": datetime.now(UTC).isoformat("T", "seconds")})
    process.end(process.tree(worker), _PATIENCE_S)
    process.end(process.left_over(pid, born), _PATIENCE_S)


def at_work(kind: str, **request: Any) -> Job | None:
    """The latest job of this kind, begun by whatever window, that runs or is paused and was asked for just this."""
    for job in reversed(shelf.all_jobs(kind)):
        same = all(job.request.get(name) == value for name, value in request.items())
        if same and _worker(shelf.folder_of(job)) is not None:
            return job
    return None


def forget(job: Job) -> None:
    """Take a job off the shelf. What it made stays.

    Raises:
        EdgeqError: it is still at work.
    """
    if look(job).state in LIVE:
        raise EdgeqError("this job is at work", where=job.title, hint="Cancel it first")
    shutil.rmtree(shelf.folder_of(job), ignore_errors=True)


def wait(job: Job, seconds: float) -> Look:
    """Look until the job is no longer at work, at most so long. For tests and commands; a window polls."""
    end = time.monotonic() + seconds
    while (seen := look(job)).state in LIVE and time.monotonic() < end:
        time.sleep(0.05)
    return seen


def _launch(job: Job) -> None:
    """Begin the worker, unless another window was faster."""
    folder = shelf.folder_of(job)
    with _alone(folder) as lock:
        if lock is None and sys.platform != "win32":
            return
        for name in (shelf.ERROR, shelf.CANCELLED, shelf.EVENTS):
            (folder / name).unlink(missing_ok=True)
        # -P: in a checkout the folder `edgeq` of the current directory is not the installed package, which has more.
        command = [sys.executable, "-P", "-m", WORKER, str(folder)]
        cwd = job.cwd if Path(job.cwd).is_dir() else None
        try:
            pid = process.begin(command, log=folder / shelf.LOG, cwd=cwd, lock=lock)
        except OSError as error:
            raise cannot_write(folder, error) from error
        # Noted here and not by the worker, so that a look right after the start sees it.
        write_json(folder / shelf.PROCESS, {"pid": pid, "born": process.birth(pid)})


@contextmanager
def _alone(folder: Path) -> Iterator[int | None]:
    """The descriptor of the job's lock; None: another worker has it, or this system has no such locks.

    The worker inherits it: the lock is free again when the worker is gone, however it went.

    Raises:
        EdgeqError: the place can't be written, or what a worker left behind holds the lock.
    """
    if sys.platform == "win32":
        yield None
        return
    _end_left_over(folder)
    try:
        with (folder / shelf.LOCK).open("wb") as lock:
            yield lock.fileno() if _taken(lock.fileno(), folder) else None
    except OSError as error:
        raise cannot_write(folder, error) from error


def _taken(lock: int, folder: Path) -> bool:
    """Whether the lock could be taken; a worker that just died has it for some moments more."""
    import fcntl

    end = time.monotonic() + _PATIENCE_S
    while _worker(folder) is None:
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if time.monotonic() > end:
            raise EdgeqError("another process holds this job", where=folder, hint="Try again when it has ended")
        time.sleep(0.02)
    return False


def _end_left_over(folder: Path) -> None:
    """End what a worker that was killed had begun: it would go on beside the next one."""
    pid, born = _noted(folder)
    if pid:
        process.end(process.left_over(pid, born), _PATIENCE_S)


def _worker(folder: Path) -> psutil.Process | None:
    """The job's process, if it lives."""
    pid, born = _noted(folder)
    return process.living(pid, born) if pid else None


def _noted(folder: Path) -> tuple[int, str]:
    """Id and birth of the job's latest process; 0: none is noted."""
    noted = shelf.load(folder / shelf.PROCESS)
    try:
        pid, born = int(noted["pid"]), str(noted["born"])
    except (TypeError, KeyError, ValueError, OverflowError):
        return 0, ""
    return (pid, born) if pid > 0 else (0, "")


def _ended(job: Job, folder: Path, last: Event | None) -> Look:
    result, failed = shelf.load(folder / shelf.RESULT), shelf.failure(folder)
    state: State = "interrupted"
    if result is not None:
        state, failed = "done", None
    elif (folder / shelf.CANCELLED).exists():
        state, failed = "cancelled", None
    elif failed is not None:
        state = "failed"
    return Look(job, state, last, result=result, failure=failed)
