"""GGUF: a strict parser of llama.cpp's file format, versions 2 and 3, little endian.

Format: magic, version, counts, typed key-value pairs, tensor infos, padding to the alignment, tensor bytes
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). Every count and length is checked against what is left
of the file before anything of that size is made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.errors import EdgeqError
from edgeq.model.ggml import GGML_TYPES
from edgeq.model.gguf_reader import GgufReader
from edgeq.model.mapped import MappedFile
from edgeq.model.safetensors_file import absurd, short

MAX_DIMS = 4
MAX_NAME = 1 << 16  # bytes of a key or tensor name
CHUNK_BYTES = 1 << 24  # stored bytes dequantized at once


PLAIN = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "I8": "<i1", "I16": "<i2", "I32": "<i4", "I64": "<i8"}


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor. `shape` is in numpy order (out, in), the reverse of the file's; `offset` counts from the data's."""

    name: str
    shape: tuple[int, ...]
    type: str
    nbytes: int
    offset: int


class GgufFile:
    """A GGUF file, opened by its header alone.

    Attributes:
        metadata: key -> int, float, bool, str, list of str, or numpy array of numbers.
        tensors: name -> GgufTensor, in the file's order.
        data_offset: byte at which the tensors' bytes begin.
    """

    def __init__(
        self, file: MappedFile, metadata: dict[str, Any], tensors: dict[str, GgufTensor], data_offset: int
    ) -> None:
        self.path = file.path
        self.metadata = metadata
        self.tensors = tensors
        self.data_offset = data_offset
        self._file = file

    @classmethod
    def open(cls, path: str | Path) -> GgufFile:
        """Read and check the header; no tensor is touched.

        Raises:
            EdgeqError: the file is missing, truncated, damaged, hostile, big endian or of an unknown version.
        """
        file = MappedFile(Path(path))
        reader = GgufReader(file)
        tensor_count, pair_count = _counts(reader)
        metadata = _metadata(reader, pair_count)
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 8 <= alignment <= 1 << 20 or alignment & (alignment - 1):
            raise reader.bad(f"general.alignment is {alignment!r}, not a power of two from 8")
        infos = _tensors(reader, tensor_count, alignment)
        data_offset = -(-reader.at // alignment) * alignment
        _check_layout(infos, data_offset, reader)
        return cls(file, metadata, infos, data_offset)

    def read(self, name: str, rows: slice | None = None) -> npt.NDArray[np.float32]:
        """float32, the tensor's shape (or that of the asked rows of its first dimension), dequantized.

        Raises:
            EdgeqError: no such tensor, a type that gguf-py can't dequantize, or gguf-py is missing.
        """
        info = self._info(name)
        first, last, step = (rows or slice(None)).indices(info.shape[0])
        if step != 1:
            raise EdgeqError(f"rows must be read in steps of one, not {step}", where=self.path)
        last = max(first, last)
        out = np.empty((last - first, *info.shape[1:]), np.float32)
        if not info.nbytes:
            return out
        stride = info.nbytes // max(1, info.shape[0])
        per_chunk = max(1, CHUNK_BYTES // max(1, stride))
        # A vector is one row of blocks: it can't be cut at any element.
        if len(info.shape) == 1:
            return self._decode(info, self.raw(name)).reshape(info.shape)[first:last]
        for a in range(first, last, per_chunk):
            b = min(a + per_chunk, last)
            at = self.data_offset + info.offset
            stored = self._file.bytes(at + a * stride, at + b * stride)
            out[a - first : b - first] = self._decode(info, stored).reshape(b - a, *info.shape[1:])
        return out

    def raw(self, name: str) -> npt.NDArray[np.uint8]:
        """uint8 (nbytes,), read-only and memory-mapped: the tensor as it is stored."""
        info = self._info(name)
        start = self.data_offset + info.offset
        return self._file.bytes(start, start + info.nbytes)

    def _info(self, name: str) -> GgufTensor:
        if name not in self.tensors:
            raise EdgeqError(f"no tensor {short(name)} in this file", where=self.path)
        return self.tensors[name]

    def _decode(self, info: GgufTensor, stored: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        if info.type in PLAIN:
            return stored.view(PLAIN[info.type]).astype(np.float32)
        if info.type == "BF16":
            return (stored.view("<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)
        return _dequantize(info, stored, self.path)


def _dequantize(info: GgufTensor, stored: npt.NDArray[np.uint8], path: Path) -> npt.NDArray[np.float32]:
    try:
        from gguf.constants import GGMLQuantizationType
        from gguf.quants import dequantize
    except ImportError as error:
        raise EdgeqError("reading a quantized GGUF needs gguf", hint="pip install 'edgeq[gguf]'") from error
    block = next(t for t in GGML_TYPES.values() if t.name == info.type)
    row_bytes = info.shape[-1] // block.elements * block.block_bytes
    try:
        # Blocks of a hostile file may hold infinities; whoever uses the values judges them.
        with np.errstate(all="ignore"):
            values = dequantize(stored.reshape(-1, row_bytes), GGMLQuantizationType[info.type])
    except (KeyError, NotImplementedError) as error:
        raise EdgeqError(f"tensor {short(info.name)} has type {info.type}, which can't be read", where=path) from error
    return np.ascontiguousarray(values, np.float32)


def _counts(reader: GgufReader) -> tuple[int, int]:
    if bytes(reader.bytes[:4]) != b"GGUF":
        raise EdgeqError("this is not a GGUF file", where=reader.path)
    reader.at = 4
    version = reader.number("I", "the version")
    if version & 0xFFFF == 0:
        raise EdgeqError("a big-endian GGUF file", where=reader.path, hint="edgeq reads little-endian files only")
    if version not in (2, 3):
        raise EdgeqError(f"GGUF version {version}", where=reader.path, hint="edgeq reads versions 2 and 3")
    tensors, pairs = reader.number("Q", "the tensor count"), reader.number("Q", "the metadata count")
    reader.need(pairs, 13, f"{pairs} metadata pairs")  # the smallest: empty key, type, one byte
    reader.need(tensors, 32, f"{tensors} tensor infos")  # the smallest: empty name, one dimension
    return tensors, pairs


def _metadata(reader: GgufReader, count: int) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for i in range(count):
        key = reader.string(f"metadata key {i}", MAX_NAME)
        if key in table:
            raise reader.bad(f"metadata key {short(key)} appears twice")
        table[key] = reader.value(reader.number("I", "a value type"), f"metadata {short(key)}")
    return table


def _tensors(reader: GgufReader, count: int, alignment: int) -> dict[str, GgufTensor]:
    table: dict[str, GgufTensor] = {}
    for i in range(count):
        info = _tensor(reader, i, alignment)
        if info.name in table:
            raise reader.bad(f"tensor {short(info.name)} appears twice")
        table[info.name] = info
    return table


def _tensor(reader: GgufReader, i: int, alignment: int) -> GgufTensor:
    name = reader.string(f"the name of tensor {i}", MAX_NAME)
    where = f"tensor {short(name)}"
    dims = reader.number("I", where)
    if not 1 <= dims <= MAX_DIMS:
        raise reader.bad(f"{where} has {dims} dimensions")
    shape = tuple(reader.number("Q", where) for _ in range(dims))[::-1]
    number, offset = reader.number("I", where), reader.number("Q", where)
    if number not in GGML_TYPES:
        raise reader.bad(f"{where} has unknown type {number}")
    kind = GGML_TYPES[number]
    if absurd(shape):
        raise reader.bad(f"{where} has an absurd shape")
    if shape[-1] % kind.elements:
        raise reader.bad(f"{where} has rows of {shape[-1]}, not a multiple of {kind.name}'s {kind.elements}")
    if offset % alignment:
        raise reader.bad(f"{where} begins at offset {offset}, not aligned to {alignment}")
    return GgufTensor(name, shape, kind.name, math.prod(shape) // kind.elements * kind.block_bytes, offset)


def _check_layout(infos: dict[str, GgufTensor], data_offset: int, reader: GgufReader) -> None:
    end = 0
    for t in sorted(infos.values(), key=lambda t: (t.offset, t.nbytes)):
        if t.offset < end:
            raise reader.bad(f"tensor {short(t.name)} overlaps another")
        end = t.offset + t.nbytes
        if data_offset + end > reader.size:
            size = reader.size
            raise reader.bad(f"truncated: tensor {short(t.name)} ends at byte {data_offset + end}, the file has {size}")
