"""The ternary grid as llama.cpp's TQ2_0 and TQ1_0: blocks of 256 weights, an f16 scale after the codes.

TQ2_0 packs four codes (0, 1, 2 for -1, 0, 1) into a byte, two bits each. TQ1_0 packs five: their digits in base 3,
most significant first, make a number below 243, stored as the smallest byte at or above 256/243 of it, so that
multiplying by 3 brings out a digit at a time; the last 16 weights are packed by fours, as if a zero followed.
Layouts: `block_tq1_0` and `block_tq2_0` of ggml-common.h.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.errors import EdgeqError
from edgeq.exporters.gguf.storable import TERNARY as BLOCK

TYPES = ("TQ2_0", "TQ1_0")
_SPANS = ((0, 160, 5), (160, 240, 5), (240, 256, 4))  # weights of a block of TQ1_0: from, to, codes in a byte
_DIGITS = 5

Bytes = npt.NDArray[np.uint8]


def ternary_blocks(q: QuantizedTensor, ggml_type: str) -> Bytes:
    """uint8 (rows, bytes of a row).

    Raises:
        EdgeqError: a row is not a whole number of blocks, or groups are smaller than a block.
    """
    rows, columns = q.shape
    if columns % BLOCK or (q.group_size % BLOCK and q.group_size < columns):
        raise EdgeqError(f"{ggml_type} needs rows and groups of whole blocks of {BLOCK}, this has {columns}")
    blocks = columns // BLOCK
    assert q.scales is not None
    scales = np.repeat(q.scales, -(-q.group_size // BLOCK), axis=1)[:, :blocks]
    codes = q.codes.reshape(rows * blocks, BLOCK)
    packed = _two_bits(codes) if ggml_type == "TQ2_0" else _base_three(codes)
    halves = np.ascontiguousarray(scales, "<f2").reshape(-1, 1).view(np.uint8)
    return np.concatenate([packed, halves], axis=1).reshape(rows, -1)


def _two_bits(codes: Bytes) -> Bytes:
    """Bytes of 32: byte i of a half holds its codes i, i + 32, i + 64, i + 96, the first in the lowest bits."""
    parts = codes.reshape(len(codes), 2, 4, 32)
    shifts = np.arange(0, 8, 2, dtype=np.uint8).reshape(1, 1, 4, 1)
    packed: Bytes = np.bitwise_or.reduce(parts << shifts, axis=2).reshape(len(codes), -1)
    return packed


def _base_three(codes: Bytes) -> Bytes:
    return np.concatenate([_digits(codes[:, a:b], count) for a, b, count in _SPANS], axis=1)


def _digits(codes: Bytes, count: int) -> Bytes:
    """Byte i holds the codes i, i + width, ..., of which there are `count`."""
    powers = 3 ** np.arange(_DIGITS - 1, _DIGITS - 1 - count, -1, dtype=np.uint16)
    numbers = (codes.reshape(len(codes), count, -1) * powers.reshape(1, -1, 1)).sum(axis=1, dtype=np.uint32)
    packed: Bytes = ((numbers * 256 + 242) // 243).astype(np.uint8)
    return packed
