"""A cursor over the header of a GGUF file: numbers, strings and typed values, none past the end of the file."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from edgeq.errors import EdgeqError
from edgeq.model.mapped import MappedFile

MAX_NESTING = 4
DAMAGED = "The file is damaged or not GGUF; fetch it again"

# Metadata value types: number -> struct format of a scalar.
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
BOOL, STRING, ARRAY = 7, 8, 9


class GgufReader:
    """A cursor over the header that never passes the end of the file."""

    def __init__(self, file: MappedFile) -> None:
        self.path = file.path
        self.size = file.size
        self.bytes = memoryview(file.bytes(0, file.size))  # type: ignore[arg-type]  # numpy 2 on 3.11
        self.at = 0

    def bad(self, what: str) -> EdgeqError:
        return EdgeqError(what, where=self.path, hint=DAMAGED)

    def need(self, count: int, size: int, what: str) -> None:
        if count * size > self.size - self.at:
            raise self.bad(f"truncated or damaged: {what} would need {count * size} bytes, {self.size - self.at} left")

    def number(self, code: str, what: str) -> Any:
        size = struct.calcsize("<" + code)
        self.need(1, size, what)
        (value,) = struct.unpack_from("<" + code, self.bytes, self.at)
        self.at += size
        return value

    def string(self, what: str, limit: int | None = None) -> str:
        length = self.number("Q", what)
        if limit is not None and length > limit:
            raise self.bad(f"{what} claims {length} bytes")
        self.need(length, 1, what)
        try:
            text = str(self.bytes[self.at : self.at + length], "utf-8")
        except UnicodeDecodeError as error:
            raise self.bad(f"{what} is not UTF-8") from error
        self.at += length
        return text

    def strings(self, count: int, what: str) -> list[str]:
        """A vocabulary has hundreds of thousands: this loop is kept tight."""
        self.need(count, 8, what)
        data, at, end, out = self.bytes, self.at, self.size, []
        read = struct.Struct("<Q").unpack_from
        try:
            for _ in range(count):
                start = at + 8
                at = start + read(data, at)[0]
                if at > end:
                    raise self.bad(f"truncated or damaged: a string of {what} passes the end of the file")
                out.append(str(data[start:at], "utf-8"))
        except struct.error as error:
            raise self.bad(f"truncated: {what} passes the end of the file") from error
        except UnicodeDecodeError as error:
            raise self.bad(f"a string of {what} is not UTF-8") from error
        self.at = at
        return out

    def value(self, kind: int, what: str, depth: int = 0) -> Any:
        if kind in SCALARS:
            return self.number(SCALARS[kind], what)
        if kind == STRING:
            return self.string(what)
        if kind != ARRAY:
            raise self.bad(f"{what} has unknown value type {kind}")
        return self.array(what, depth)

    def array(self, what: str, depth: int) -> Any:
        kind, count = self.number("I", what), self.number("Q", what)
        if kind == STRING:
            return self.strings(count, what)
        if kind == ARRAY:
            if depth >= MAX_NESTING:
                raise self.bad(f"{what} nests arrays too deeply")
            self.need(count, 12, what)
            return [self.array(what, depth + 1) for _ in range(count)]
        if kind not in SCALARS:
            raise self.bad(f"{what} is an array of unknown type {kind}")
        # bool is read as bytes: any other than 0 and 1 would make an invalid numpy bool.
        dtype = np.dtype("u1" if kind == BOOL else "<" + SCALARS[kind])
        self.need(count, dtype.itemsize, what)
        values = np.frombuffer(self.bytes, dtype, count, self.at).copy()
        self.at += values.nbytes
        return values != 0 if kind == BOOL else values
