"""A read-only file, memory-mapped piece by piece, so that reading one tensor never keeps another resident."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeq.errors import EdgeqError


class MappedFile:
    """An open file whose byte ranges can be mapped.

    The descriptor stays open, so that a file replaced meanwhile goes on being read as it was.

    Raises:
        EdgeqError: no such file, a folder, no permission.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise EdgeqError(f"cannot open the file: {error.strerror or error}", where=path) from error
        if not path.is_file():
            os.close(self._fd)
            self._fd = -1
            raise EdgeqError("this is not a file", where=path)
        self.size = os.fstat(self._fd).st_size

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            os.close(self._fd)

    def bytes(self, start: int, end: int) -> npt.NDArray[np.uint8]:
        """uint8 (end - start,), read-only: the pages are loaded when touched and go when the array goes."""
        if start == end:
            return np.zeros(0, np.uint8)
        # A mapped page behind the end of a shortened file would kill the process with SIGBUS.
        if not 0 <= start <= end <= os.fstat(self._fd).st_size:
            raise EdgeqError(f"the file ends before byte {end}", where=self.path, hint="Fetch it again")
        first = start - start % mmap.ALLOCATIONGRANULARITY
        try:
            pages = mmap.mmap(self._fd, end - first, access=mmap.ACCESS_READ, offset=first)
        except (OSError, ValueError, OverflowError) as error:
            raise EdgeqError(f"cannot map the file: {error}", where=self.path) from error
        return np.frombuffer(pages, np.uint8, end - start, start - first)
