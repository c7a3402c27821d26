"""Huge pages for the kernels' copies of the weights (Linux).

Decoding streams every weight once a token. In pages of 4 KiB that is a page-table walk every few hundred cycles; in
pages of 2 MiB the hardware prefetchers run on. Runtimes allocate their packed weights with malloc, which asks for no
huge pages, so they are collapsed afterwards: `madvise(MADV_COLLAPSE)`, Linux 6.1 and later, whatever the system's
setting of transparent huge pages but `never`. The contents stay where they are; nothing else notices.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Thread

Range = tuple[int, int]

HUGE = 2 << 20
_SMALLEST = 4 << 20  # a smaller range is not worth a call
_PART = 8 << 20  # collapsed by one call: others can map memory between two
_MADV_COLLAPSE = 25
_MAPS = Path("/proc/self/maps")


def anonymous(maps: str) -> list[Range]:
    """Start and end of the writable private mappings without a file, from the text of /proc/self/maps."""
    found = []
    for line in maps.splitlines():
        fields = line.split(None, 5)
        if len(fields) < 5 or not fields[1].startswith("rw-p") or fields[4] != "0":
            continue
        if len(fields) == 6 and fields[5].strip() != "[heap]":
            continue
        start, _, end = fields[0].partition("-")
        found.append((int(start, 16), int(end, 16)))
    return found


def added(before: Sequence[Range], after: Sequence[Range]) -> list[Range]:
    """What `after` has beyond `before`, in whole huge pages, small pieces left out."""
    pieces = []
    for start, end in after:
        for old_start, old_end in sorted(before):
            if old_end <= start or old_start >= end:
                continue
            pieces.append((start, old_start))
            start = max(start, old_end)
        pieces.append((start, end))
    whole = [(-(-start // HUGE) * HUGE, end // HUGE * HUGE) for start, end in pieces]
    return [(start, end) for start, end in whole if end - start >= _SMALLEST]


def mappings() -> list[Range]:
    """Of this process; none where the system does not tell."""
    try:
        return anonymous(_MAPS.read_text("ascii", "replace"))
    except OSError:
        return []


def collapse_in_background(before: Sequence[Range]) -> Thread | None:
    """Collapse what was mapped since `before` while the program goes on; the thread, where there is work for one."""
    if sys.platform != "linux":
        return None
    ranges = added(before, mappings())
    if not ranges:
        return None
    thread = Thread(target=collapse, args=(ranges,), name="edgeq-huge-pages", daemon=True)
    thread.start()
    return thread


def collapse(ranges: Sequence[Range]) -> int:
    """Collapse ranges; the bytes that are in huge pages now. Stops where the kernel does not know how."""
    madvise = ctypes.CDLL(None, use_errno=True).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    done = 0
    for start, end in ranges:
        for at in range(start, end, _PART):
            size = min(_PART, end - at)
            if madvise(at, size, _MADV_COLLAPSE) == 0:
                done += size
            elif not done:
                return 0  # an old kernel, or none allowed: the first answer is everyone's
    return done
