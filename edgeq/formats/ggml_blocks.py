"""Quantized tensors to the bytes of llama.cpp's blocks, and back, without a value changing.

A block holds 32 or 256 weights of a row: a few f16 numbers, packed sub-scales, packed codes. The layouts are those of
`ggml-common.h` (ggml, 2026), restated as a table: each type is a sequence of fields in the order of its bytes.

Codes are packed in chunks: with `bits` bits and a span `n`, a chunk of `n` bytes holds codes `0..n-1` in its lowest
bits, the next `n` codes in the bits above, and so on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.checkpoint.tensor import Parameters, QuantizedTensor
from edgeq.errors import EdgeqError
from edgeq.model.ggml import GGML_TYPES
from edgeq.scheme import GGML_GRIDS, Grid

Bytes = npt.NDArray[np.uint8]
Array = npt.NDArray[Any]
HALF = np.dtype("<f2")
_BLOCK_BYTES = {t.name: t.block_bytes for t in GGML_TYPES.values()}


@dataclass(slots=True)
class _Blocks:
    """Parts of N blocks: codes uint8 (N, weights); scales and minima (N, groups), f16 or codes without a sign (uint8);
    super-scales and super-zeros f16 (N, 1)."""

    codes: Bytes
    scales: Array
    minima: Array | None = None
    super_scales: Array | None = None
    super_zeros: Array | None = None


Reader = Callable[[_Blocks, Bytes], None]
Writer = Callable[[_Blocks], Bytes]


@dataclass(frozen=True, slots=True)
class _Field:
    """Some bytes of a block: `write` makes them (N, n_bytes), `read` adds what they hold to the parts."""

    n_bytes: int
    write: Writer
    read: Reader


def _half(part: str) -> _Field:
    """An f16 number of the block."""

    def write(b: _Blocks) -> Bytes:
        return np.ascontiguousarray(getattr(b, part), HALF).view(np.uint8)

    def read(b: _Blocks, data: Bytes) -> None:
        setattr(b, part, np.ascontiguousarray(data).view(HALF).astype(np.float16))

    return _Field(2, write, read)


def _bits(part: str, n_bytes: int, bits: int, span: int, shift: int = 0, flip: bool = False) -> _Field:
    """`bits` bits of every code, from `shift` on; `flip`: stored inverted."""
    mask = np.uint8((1 << bits) - 1)
    turned = mask if flip else np.uint8(0)

    def write(b: _Blocks) -> Bytes:
        return pack(((getattr(b, part) >> np.uint8(shift)) & mask) ^ turned, bits, span)

    def read(b: _Blocks, data: Bytes) -> None:
        found = getattr(b, part)
        found |= (unpack(data, bits, span) ^ turned) << np.uint8(shift)

    return _Field(n_bytes, write, read)


def pack(codes: Bytes, bits: int, span: int) -> Bytes:
    """uint8 (N, count), each below `2**bits` -> uint8 (N, count * bits / 8)."""
    parts = codes.reshape(len(codes), -1, 8 // bits, span)
    out = parts[:, :, 0].copy()
    for i in range(1, 8 // bits):
        out |= parts[:, :, i] << np.uint8(i * bits)
    return out.reshape(len(codes), -1)


def unpack(data: Bytes, bits: int, span: int) -> Bytes:
    """The codes that `pack` packed."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8).reshape(1, 1, -1, 1)
    parts = data.reshape(len(data), -1, 1, span) >> shifts
    return (parts & np.uint8((1 << bits) - 1)).reshape(len(data), -1)


def _bytes(part: str, n_bytes: int, offset: int) -> _Field:
    """A byte each, stored as a signed number that is `offset` less than the code."""

    def write(b: _Blocks) -> Bytes:
        found: Bytes = getattr(b, part) - np.uint8(offset)  # wraps, as two's complement does
        return found

    def read(b: _Blocks, data: Bytes) -> None:
        setattr(b, part, data + np.uint8(offset))

    return _Field(n_bytes, write, read)


def _four_bit_pairs() -> _Field:
    """16 bytes: a scale in the low nibble, its minimum in the high one."""

    def write(b: _Blocks) -> Bytes:
        assert b.minima is not None
        found: Bytes = b.scales | b.minima << np.uint8(4)
        return found

    def read(b: _Blocks, data: Bytes) -> None:
        b.scales, b.minima = data & np.uint8(15), data >> np.uint8(4)

    return _Field(16, write, read)


def _six_bit_pairs() -> _Field:
    """8 scales and 8 minima of 6 bits in 12 bytes: the low 6 bits of bytes 0-3 are scales 0-3, of bytes 4-7 minima
    0-3; bytes 8-11 hold the low nibbles of scales 4-7 and, above them, of minima 4-7, whose upper 2 bits top up
    bytes 0-3 and 4-7."""

    def write(b: _Blocks) -> Bytes:
        assert b.minima is not None
        s, m = b.scales, b.minima
        first = s[:, :4] | (s[:, 4:] >> 4) << 6
        second = m[:, :4] | (m[:, 4:] >> 4) << 6
        return np.concatenate([first, second, (s[:, 4:] & 15) | (m[:, 4:] & 15) << 4], axis=1)

    def read(b: _Blocks, data: Bytes) -> None:
        first, second, third = data[:, :4], data[:, 4:8], data[:, 8:]
        b.scales = np.concatenate([first & 63, (third & 15) | (first >> 6) << 4], axis=1)
        b.minima = np.concatenate([second & 63, (third >> 4) | (second >> 6) << 4], axis=1)

    return _Field(12, write, read)


D, M = _half("scales"), _half("minima")
SUPER_D, SUPER_M = _half("super_scales"), _half("super_zeros")
_LAYOUTS: dict[str, tuple[_Field, ...]] = {
    "Q4_0": (D, _bits("codes", 16, 4, 16)),
    "Q4_1": (D, M, _bits("codes", 16, 4, 16)),
    "Q5_0": (D, _bits("codes", 4, 1, 1, shift=4), _bits("codes", 16, 4, 16)),
    "Q5_1": (D, M, _bits("codes", 4, 1, 1, shift=4), _bits("codes", 16, 4, 16)),
    "Q8_0": (D, _bytes("codes", 32, 128)),
    "Q2_K": (_four_bit_pairs(), _bits("codes", 64, 2, 32), SUPER_D, SUPER_M),
    "Q3_K": (
        _bits("codes", 32, 1, 32, shift=2),
        _bits("codes", 64, 2, 32),
        _bits("scales", 8, 4, 8),
        _bits("scales", 4, 2, 4, shift=4),
        SUPER_D,
    ),
    "Q4_K": (SUPER_D, SUPER_M, _six_bit_pairs(), _bits("codes", 128, 4, 32)),
    "Q5_K": (SUPER_D, SUPER_M, _six_bit_pairs(), _bits("codes", 32, 1, 32, shift=4), _bits("codes", 128, 4, 32)),
    "Q6_K": (_bits("codes", 128, 4, 64), _bits("codes", 64, 2, 32, shift=4), _bytes("scales", 16, 128), SUPER_D),
    "IQ4_NL": (D, _bits("codes", 16, 4, 16)),
    "IQ4_XS": (SUPER_D, _bits("scales", 2, 2, 1, shift=4), _bits("scales", 4, 4, 1), _bits("codes", 128, 4, 16)),
}


def to_blocks(q: QuantizedTensor) -> Bytes:
    """uint8 (rows, bytes of a row): the tensor as GGUF holds it; `gguf.quants.dequantize` of it is `q.dequantize()`.

    Raises:
        EdgeqError: the grid is no block type, or a row is not a whole number of blocks.
    """
    grid, (rows, columns) = q.grid, q.shape
    if grid.kind != "gguf" or grid != GGML_GRIDS.get(grid.ggml_type or ""):
        raise EdgeqError("this grid is no block type of GGUF", hint=f"It has {', '.join(GGML_GRIDS)}")
    per_row = _blocks_of(grid, columns)
    count = rows * per_row
    blocks = _Blocks(
        *(None if a is None else np.ascontiguousarray(a).reshape(count, -1) for a in (q.codes, *q.parameters.arrays()))  # type: ignore[arg-type]
    )
    if blocks.scales.dtype == np.int8:
        blocks.scales = blocks.scales.view(np.uint8) + np.uint8(1 << (grid.scale_bits - 1))
    parts = [field.write(blocks) for field in _LAYOUTS[str(grid.ggml_type)]]
    return np.concatenate(parts, axis=1).reshape(rows, -1)


def from_blocks(data: Bytes, ggml_type: str, columns: int) -> QuantizedTensor:
    """uint8 (rows, bytes of a row) -> the tensor, every code and parameter as stored.

    Raises:
        EdgeqError: no grid for this type, or the bytes are not those of such rows.
    """
    grid = GGML_GRIDS.get(ggml_type)
    if grid is None:
        raise EdgeqError(f"blocks of type {ggml_type} can't be read", hint=f"Readable: {', '.join(GGML_GRIDS)}")
    per_row = _blocks_of(grid, columns)
    n_bytes = _BLOCK_BYTES[ggml_type]
    if data.ndim != 2 or data.dtype != np.uint8 or data.shape[1] != per_row * n_bytes:
        expected = f"{per_row * n_bytes} bytes a row"
        raise EdgeqError(f"{columns} weights of type {ggml_type} are {expected}, not {data.shape[-1]} {data.dtype}")
    rows, count = len(data), len(data) * per_row
    raw = np.ascontiguousarray(data).reshape(count, n_bytes)
    blocks = _empty(grid, count)
    start = 0
    for field in _LAYOUTS[ggml_type]:
        field.read(blocks, raw[:, start : start + field.n_bytes])
        start += field.n_bytes
    scales = blocks.scales
    if grid.super_size is not None and grid.symmetric:
        scales = (scales - np.uint8(1 << (grid.scale_bits - 1))).view(np.int8)
    parts = (scales, blocks.minima, blocks.super_scales, blocks.super_zeros)
    found = Parameters(*(None if a is None else a.reshape(rows, -1) for a in parts))  # type: ignore[arg-type]
    return QuantizedTensor.of(grid, blocks.codes.reshape(rows, columns), found)


def _blocks_of(grid: Grid, columns: int) -> int:
    size = grid.super_size or grid.group_size
    if columns < 1 or columns % size:
        hint = "llama.cpp stores such rows as another type"
        raise EdgeqError(f"rows of {columns} weights are no whole blocks of {size} ({grid.ggml_type})", hint=hint)
    return columns // size


def _empty(grid: Grid, count: int) -> _Blocks:
    """Codes and sub-scales start at zero: fields of bits add to them."""
    size = grid.super_size or grid.group_size
    return _Blocks(np.zeros((count, size), np.uint8), np.zeros((count, size // grid.group_size), np.uint8))
