"""Hidden states on disk: what a block reads, for all of the calibration text, in batches of whole sequences.

A file is named by the block whose input it is: `hidden-0003.npy` of the quantized stream, `float-0003.npy` of the
unquantized model's. It is written from front to back and takes its name when it is whole; it is read batch by batch
and never mapped, so that it neither grows the process nor kills it when the disk is full.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from edgeq.artifact import sha256
from edgeq.checkpoint.manifest import FileEntry
from edgeq.errors import EdgeqError
from edgeq.estimate.needs import TOKENS_AT_ONCE
from edgeq.files import cannot_write, whole_file

Tensor = torch.Tensor


def hidden_name(index: int) -> str:
    return f"hidden-{index:04}.npy"


def float_name(index: int) -> str:
    return f"float-{index:04}.npy"


def batch_slices(sequences: int, length: int) -> list[slice]:
    """Batches of whole sequences."""
    step = max(1, TOKENS_AT_ONCE // length)
    return [slice(a, min(a + step, sequences)) for a in range(0, sequences, step)]


def write_hidden(path: Path, shape: tuple[int, int, int], batches: Iterable[Tensor]) -> FileEntry:
    """Write float32 (sequences, tokens, hidden) from batches of sequences.

    Raises:
        EdgeqError: the disk is full, or the batches don't make up the shape.
    """
    digest, size = hashlib.sha256(), 0
    with whole_file(path) as stream:
        noting = _Noting(stream)
        np.lib.format.write_array_header_1_0(
            noting,  # type: ignore[arg-type]
            {"descr": "<f4", "fortran_order": False, "shape": shape},
        )
        data = 0
        for batch in batches:
            part = _bytes(batch)
            noting.write(part)
            data += len(part)
        if data != 4 * shape[0] * shape[1] * shape[2]:
            raise EdgeqError(f"hidden states of {data} bytes do not make up the shape {shape}", where=path)
        digest, size = noting.digest, noting.size
    return FileEntry(size, digest.hexdigest())


class HiddenStates:
    """A whole file of hidden states, read in batches.

    Raises:
        EdgeqError: not such a file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as stream:
                np.lib.format.read_magic(stream)
                shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
                self._start = stream.tell()
        except (OSError, ValueError) as error:
            raise EdgeqError("cannot read the hidden states", where=path) from error
        if dtype != np.dtype("<f4") or len(shape) != 3:
            raise EdgeqError("these are no hidden states", where=path)
        self.shape: tuple[int, int, int] = shape

    def batches(self) -> Iterator[Tensor]:
        """float32 (sequences, tokens, hidden), each in memory of its own."""
        sequences, tokens, width = self.shape
        with self.path.open("rb") as stream:
            for part in batch_slices(sequences, tokens):
                out = torch.empty(part.stop - part.start, tokens, width)
                stream.seek(self._start + 4 * part.start * tokens * width)
                got = stream.readinto(out.numpy().reshape(-1).view(np.uint8).data)  # type: ignore[attr-defined]
                if got != out.nbytes:
                    raise EdgeqError("the hidden states are cut short", where=self.path)
                yield out


class HiddenWriter:
    """A scratch file of hidden states (sequences, tokens, width) that a pass writes as it goes along.

    It may be lost: nothing is synced, and it bears its name from the start.
    """

    def __init__(self, path: Path, shape: tuple[int, int]) -> None:
        self._path, self._shape = path, shape
        self._stream: BinaryIO | None = None

    def add(self, batch: Tensor) -> None:
        """Append a batch (sequences, tokens, width).

        Raises:
            EdgeqError: the disk is full.
        """
        try:
            if self._stream is None:
                self._stream = self._path.open("wb")
                header = {"descr": "<f4", "fortran_order": False, "shape": (*self._shape, batch.shape[-1])}
                np.lib.format.write_array_header_1_0(self._stream, header)
            self._stream.write(_bytes(batch))
        except OSError as error:
            self.abandon()
            raise cannot_write(self._path, error) from error

    def finish(self) -> HiddenStates:
        try:
            assert self._stream is not None, "no batch was added"
            self._stream.close()
        except OSError as error:
            raise cannot_write(self._path, error) from error
        return HiddenStates(self._path)

    def abandon(self) -> None:
        with suppress(OSError):
            if self._stream is not None:
                self._stream.close()
            self._path.unlink(missing_ok=True)


def intact(path: Path, entry: FileEntry) -> bool:
    """The file is as it was written."""
    return path.is_file() and path.stat().st_size == entry.bytes and sha256(path) == entry.sha256


def _bytes(batch: Tensor) -> memoryview:
    return np.ascontiguousarray(batch.numpy(), "<f4").reshape(-1).view(np.uint8).data


class _Noting:
    """A stream that takes the checksum of what passes through it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes | memoryview) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self._stream.write(data)
