"""Dense packing of 1 to 8 bit codes, little endian: code 0 in the lowest bits of byte 0, no gap between codes.

For 1, 2, 4 and 8 bits this is the layout of ONNX Runtime's MatMulNBits along K.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgeq.errors import EdgeqError

Codes = npt.NDArray[np.uint8]
ROWS_AT_ONCE = 1 << 20  # codes spread to bits at once, to bound memory at 8 bytes a code


def packed_width(columns: int, bits: int) -> int:
    """Bytes of one packed row; the last byte is padded with zero bits."""
    return (columns * bits + 7) // 8


def pack(codes: Codes, bits: int) -> Codes:
    """uint8 (rows, columns), each below 2**bits -> uint8 (rows, packed_width).

    Raises:
        EdgeqError: bits are not 1 to 8, or a code does not fit.
    """
    _check_bits(bits)
    rows, columns = codes.shape
    if codes.size and int(codes.max()) >> bits:
        raise EdgeqError(f"a code of {int(codes.max())} does not fit {bits} bits")
    if bits == 8:
        return np.ascontiguousarray(codes)
    if bits == 4:
        return _pack_nibbles(codes)
    out = np.empty((rows, packed_width(columns, bits)), np.uint8)
    for part in _row_chunks(rows, columns):
        spread = np.unpackbits(codes[part][..., None], axis=2, count=bits, bitorder="little")
        out[part] = np.packbits(spread.reshape(spread.shape[0], -1), axis=1, bitorder="little")
    return out


def unpack(packed: Codes, bits: int, columns: int) -> Codes:
    """uint8 (rows, packed_width) -> uint8 (rows, columns).

    Raises:
        EdgeqError: bits are not 1 to 8, or the width is not that of so many columns.
    """
    _check_bits(bits)
    rows, width = packed.shape
    if width != packed_width(columns, bits):
        raise EdgeqError(f"packed rows have {width} bytes, {columns} codes of {bits} bits need other")
    if bits == 8:
        return np.array(packed)
    if bits == 4:
        nibbles = np.empty((rows, width, 2), np.uint8)
        np.bitwise_and(packed, 15, out=nibbles[..., 0])
        np.right_shift(packed, 4, out=nibbles[..., 1])
        return np.ascontiguousarray(nibbles.reshape(rows, 2 * width)[:, :columns])
    out = np.empty((rows, columns), np.uint8)
    for part in _row_chunks(rows, columns):
        spread = np.unpackbits(packed[part], axis=1, count=columns * bits, bitorder="little")
        out[part] = np.packbits(spread.reshape(-1, columns, bits), axis=2, bitorder="little")[..., 0]
    return out


def _pack_nibbles(codes: Codes) -> Codes:
    out = np.array(codes[:, ::2])
    out[:, : codes.shape[1] // 2] |= codes[:, 1::2] << 4
    return out


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= 8:
        raise EdgeqError(f"codes of {bits} bits can't be packed", hint="1 to 8 bits")


def _row_chunks(rows: int, columns: int) -> list[slice]:
    step = max(1, ROWS_AT_ONCE // max(1, columns))
    return [slice(a, min(a + step, rows)) for a in range(0, rows, step)]
