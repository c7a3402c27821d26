"""The processes of jobs: which one it is, whether it lives, all that it began, stopped and let go on as one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil

_LISTINGS = 8  # of children at most, until a pause has them all
_STOP_S = 2.0  # that processes have to stand still: with hardly any load it takes a millisecond
_ours: dict[int, subprocess.Popen[bytes]] = {}  # begun here, to be reaped here


def begin(command: list[str], *, log: Path, cwd: str | None, lock: int | None) -> int:
    """A process that outlives this one and its terminal. Returns its id.

    Args:
        lock: descriptor that it inherits and keeps open until it ends.

    Raises:
        OSError: it can't be begun.
    """
    detached: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        detached = {"creationflags": subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP}
    elif lock is not None:
        detached["pass_fds"] = (lock,)
    with log.open("ab") as said:
        made = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=cwd, **detached)
    _ours[made.pid] = made
    return made.pid


def birth(pid: int) -> str | None:
    """What tells this process from any other that had or will have its id; None: there is none.

    On Linux not its time of day, which moves when the clock is set, but ticks since this boot.
    """
    if sys.platform == "linux":
        try:
            fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
            return f"{_boot()}:{fields[19]}"
        except (OSError, IndexError):
            return None
    try:
        return f"{psutil.Process(pid).create_time():.2f}"
    except psutil.Error:
        return None


@cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def living(pid: int, born: str) -> psutil.Process | None:
    """The process, if it still is the one that was born so, and not a zombie."""
    if pid in _ours and _ours[pid].poll() is not None:
        del _ours[pid]
    try:
        if birth(pid) != born:
            return None
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process
    except (psutil.Error, OverflowError, ValueError):
        return None


def tree(process: psutil.Process) -> list[psutil.Process]:
    """The process and all that it began, itself first."""
    try:
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return [process]


def left_over(pid: int, born: str) -> list[psutil.Process]:
    """What a worker that is no more had begun and still runs: the members of its session.

    Of the dead it stays on the list for a while, as a zombie, until its parent has asked or its last thread is gone.
    """
    if not hasattr(os, "getsid") or birth(pid) not in (None, born) or living(pid, born) is not None:
        return []  # none, or another process has the id, and the session may be its own
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid != pid and os.getsid(process.pid) == pid:
                found.append(process)
    return found


def suspend(process: psutil.Process) -> None:
    """Stop it and all that it began, the parents first, so that none begins another meanwhile.

    They stand still when this returns, unless one waits for a disk.
    """
    stopped: set[int] = set()
    for _ in range(_LISTINGS):
        fresh = [one for one in tree(process) if one.pid not in stopped]
        if not fresh:
            return
        for one in fresh:
            stopped.add(one.pid)
            with suppress(psutil.Error):
                one.suspend()
        _stand_still(fresh)


def _stand_still(processes: list[psutil.Process]) -> None:
    """Wait for it: a process that was told to stop does so when it next gets the processor, which others may have."""
    end = time.monotonic() + _STOP_S
    for one in processes:
        with suppress(psutil.Error):
            while one.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE) and time.monotonic() < end:
                time.sleep(0.002)


def let_go_on(process: psutil.Process) -> None:
    """The contrary of `suspend`, the children first."""
    for one in reversed(tree(process)):
        with suppress(psutil.Error):
            one.resume()


def end(processes: list[psutil.Process], patience_s: float) -> None:
    """Ask them to end, and after a while make them."""
    for process in processes:
        with suppress(psutil.Error):
            process.terminate()
            process.resume()  # a suspended one hears nothing
    for process in psutil.wait_procs(processes, timeout=patience_s)[1]:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=patience_s)


def rss_of(process: psutil.Process) -> int:
    """Bytes of resident memory of it and all that it began."""
    total = 0
    for one in tree(process):
        with suppress(psutil.Error):
            total += one.memory_info().rss
    return total


def yield_to_others(steps: int) -> None:
    """Have this process give way to whatever else wants the processor, a screen above all; idle ones it takes."""
    with suppress(psutil.Error, OSError, AttributeError):
        if sys.platform == "win32":
            psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
        else:
            os.nice(max(0, steps - os.nice(0)))
