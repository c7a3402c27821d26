"""Constants of the model in the making: small ones in memory, weights in a file that is mapped, not read.

OpenVINO serializes a model whose constants are anywhere; so that no more than one matrix is in memory at a time, their
bytes go to a file beside the model first, which is gone when the model is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as op

Array = npt.NDArray[Any]
_ALIGN = 64
_DTYPES = {"f16": np.float16, "f32": np.float32, "u8": np.uint8, "i8": np.int8}


class Spool:
    """Use as a context manager that outlives the model."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "weights.spool"
        self._file = self._path.open("wb")
        self._mapped: list[Array] = []  # what the model's constants share

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._mapped.clear()
        self._file.close()
        self._path.unlink()

    def write(self, parts: Iterable[Array]) -> Array:
        """The parts' bytes, one after the other, as an array mapped from the file."""
        self._file.write(b"\0" * (-self._file.tell() % _ALIGN))
        start = self._file.tell()
        for part in parts:
            self._file.write(np.ascontiguousarray(part).data)
        self._file.flush()
        # Copy on write, which nothing does: OpenVINO shares no memory that can't be written.
        mapped = np.memmap(self._path, np.uint8, "c", start, (self._file.tell() - start,))
        self._mapped.append(mapped)
        return mapped

    def constant(self, kind: str, shape: Sequence[int], data: Array) -> ov.Output:
        """What `write` gave as a constant of OpenVINO's element type `kind`."""
        dtype = _DTYPES.get(kind)
        if dtype is None:
            tensor = ov.Tensor(data, ov.Shape(list(shape)), getattr(ov.Type, kind))
        else:
            tensor = ov.Tensor(data.view(dtype).reshape(tuple(shape)), shared_memory=True)
        return op.constant(tensor, shared_memory=True).output(0)
