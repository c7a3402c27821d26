"""A worker whose disk is full after some shards."""

from __future__ import annotations

import errno
import os
from typing import Any

from edgeq.files import cannot_write
from edgeq.jobs import worker
from edgeq.quantize.journal import Done, Journal

ROOM = 20  # shards
_add = Journal.add


def add(journal: Journal, *args: Any, **more: Any) -> Done:
    if len(journal.done) >= ROOM:
        raise cannot_write(journal.path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    return _add(journal, *args, **more)


if __name__ == "__main__":
    Journal.add = add  # type: ignore[method-assign]
    worker.main()
