"""Start, look at, pause, resume, cancel and forget jobs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from edgeq.errors import EdgeqError
from edgeq.files import cannot_write, write_json
from edgeq.jobs import shelf
from edgeq.jobs.job import LIVE, Event, Job, Look, State

WORKER = "edgeq.jobs.worker"
_PATIENCE_S = 5.0  # that a cancelled process has to tidy up
_STARTED_S = 0.05  # by which two readings of a process's start may differ


def start(kind: str, request: dict[str, Any], title: str) -> Job:
    """Begin a piece of work in a process of its own, which goes on when this one ends.

    Raises:
        EdgeqError: the jobs' place can't be written.
    """
    now = datetime.now(UTC)
    job = Job(f"{now:%Y%m%d-%H%M%S}-{kind}-{uuid.uuid4().hex[:6]}", kind, request, title, now.isoformat("T", "seconds"))
    shelf.put(job)
    _launch(job)
    return job


def look(job: Job) -> Look:
    """The job as it is now. Cheap: some small files and one process are looked at."""
    folder = shelf.folder_of(job)
    process = _process(folder)
    recent = shelf.events(folder)
    last = recent[-1] if recent else None
    if process is None:
        return _ended(job, folder, last)
    try:
        stopped, rss = process.status() == psutil.STATUS_STOPPED, _tree_rss(process)
    except psutil.Error:
        return _ended(job, folder, last)
    return Look(job, "paused" if stopped else "running", last, _remaining(recent), rss)


def pause(job: Job) -> None:
    """Suspend the job's processes; they keep their memory. Nothing happens to one that does not run."""
    for process in _tree(_process(shelf.folder_of(job))):
        with suppress(psutil.Error):
            process.suspend()


def resume(job: Job) -> None:
    """Let a paused job go on; begin one anew that ended without a result: its work takes up what is finished.

    Raises:
        EdgeqError: the job is done, or its place can't be written.
    """
    seen = look(job)
    if seen.state == "paused":
        for process in _tree(_process(shelf.folder_of(job))):
            with suppress(psutil.Error):
                process.resume()
    elif seen.state == "done":
        raise EdgeqError("this job is done", where=job.title)
    elif seen.state != "running":
        _launch(job)


def cancel(job: Job) -> None:
    """End the job's processes. What it had finished stays where it is, and `resume` goes on from there."""
    folder = shelf.folder_of(job)
    found = _tree(_process(folder))
    if not found:
        return
    write_json(folder / shelf.CANCELLED, {"at": datetime.now(UTC).isoformat("T", "seconds")})
    for process in found:
        with suppress(psutil.Error):
            process.terminate()
            process.resume()  # a suspended one hears nothing
    for process in psutil.wait_procs(found, timeout=_PATIENCE_S)[1]:
        with suppress(psutil.Error):
            process.kill()


def forget(job: Job) -> None:
    """Take a job off the shelf. What it made stays.

    Raises:
        EdgeqError: it is still at work.
    """
    if look(job).state in LIVE:
        raise EdgeqError("this job is at work", where=job.title, hint="Cancel it first")
    shutil.rmtree(shelf.folder_of(job), ignore_errors=True)


def _launch(job: Job) -> None:
    folder = shelf.folder_of(job)
    for name in (shelf.ERROR, shelf.CANCELLED, shelf.EVENTS):
        (folder / name).unlink(missing_ok=True)
    # -P: in a checkout the folder `edgeq` of the current directory is not the installed package, which has more in it.
    command = [sys.executable, "-P", "-m", WORKER, str(folder)]
    try:
        with (folder / shelf.LOG).open("ab") as log:
            worker = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, close_fds=True, **_detached()
            )
    except OSError as error:
        raise cannot_write(folder, error) from error
    # Noted here and not by the worker, so that a look right after the start sees it.
    with suppress(psutil.Error):
        write_json(folder / shelf.PROCESS, {"pid": worker.pid, "started": psutil.Process(worker.pid).create_time()})


def _detached() -> dict[str, Any]:
    """What makes a process outlive the terminal that began it."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _process(folder: Path) -> psutil.Process | None:
    """The job's process, if it lives: the same id and the same start, so that another's is never taken for it."""
    noted = shelf.load(folder / shelf.PROCESS)
    try:
        process = psutil.Process(int(noted["pid"]))
        same = abs(process.create_time() - float(noted["started"])) < _STARTED_S
        if process.status() == psutil.STATUS_ZOMBIE:
            with suppress(psutil.Error):
                process.wait(0)  # a child of ours that nobody waited for
            return None
    except (TypeError, KeyError, ValueError, psutil.Error):
        return None
    return process if same else None


def _tree(process: psutil.Process | None) -> list[psutil.Process]:
    if process is None:
        return []
    try:
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return [process]


def _tree_rss(process: psutil.Process) -> int:
    total = 0
    for one in _tree(process):
        with suppress(psutil.Error):
            total += one.memory_info().rss
    return total


def _ended(job: Job, folder: Path, last: Event | None) -> Look:
    result, failed = shelf.load(folder / shelf.RESULT), shelf.failure(folder)
    state: State = "interrupted"
    if result is not None:
        state = "done"
    elif (folder / shelf.CANCELLED).exists():
        state, failed = "cancelled", None
    elif failed is not None:
        state = "failed"
    return Look(job, state, last, result=result, failure=failed)


def _remaining(recent: list[Event]) -> float | None:
    """Seconds left of the present part, at the rate of its latest events."""
    if not recent or not recent[-1].total:
        return None
    last = recent[-1]
    part = [e for e in recent if e.total == last.total and e.done <= last.done]
    spent, made = last.active_s - part[0].active_s, last.done - part[0].done
    return (last.total - last.done) * spent / made if made > 0 and spent > 0 else None


def wait(job: Job, seconds: float) -> Look:
    """Look until the job is no longer at work, at most so long. For tests and commands; a window polls."""
    end = time.monotonic() + seconds
    while (seen := look(job)).state in LIVE and time.monotonic() < end:
        time.sleep(0.05)
    return seen
