"""How many threads a run takes: one setting for numpy's loops here and for torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from edgeq.errors import EdgeqError

VARIABLE = "OMP_NUM_THREADS"  # read by torch when it is first imported, by grid searches whenever they start


@contextmanager
def limited(threads: int | None) -> Iterator[None]:
    """Everything below runs on so many threads; None: as it is.

    Raises:
        EdgeqError: less than one.
    """
    if threads is None:
        yield
        return
    if threads < 1:
        raise EdgeqError(f"{threads} threads", hint="One at the least")
    before, torch = os.environ.get(VARIABLE), sys.modules.get("torch")
    had = torch.get_num_threads() if torch is not None else None
    os.environ[VARIABLE] = str(threads)
    if torch is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before
        if torch is not None and had is not None:
            torch.set_num_threads(had)


def threads_now() -> int:
    """Threads that a computation takes here."""
    wanted = os.environ.get(VARIABLE, "")
    if wanted.isdigit() and int(wanted):
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
