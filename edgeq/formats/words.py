"""Codes in 32-bit words, as GPTQ, AWQ and compressed-tensors pack them: a dense stream of bits, lowest first."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.checkpoint.pack import pack, packed_width, unpack
from edgeq.errors import EdgeqError

Codes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.int32]
WORD = 32


def words_of(columns: int, bits: int) -> int:
    """Words of a row of so many codes."""
    return -(-columns * bits // WORD)


def to_words(codes: Codes, bits: int) -> Words:
    """uint8 (rows, columns), each below 2**bits -> int32 (rows, words_of(columns, bits)), padded with zero bits."""
    packed = pack(np.ascontiguousarray(codes), bits)
    wide = 4 * words_of(codes.shape[1], bits)
    padded = np.pad(packed, ((0, 0), (0, wide - packed.shape[1])))
    return np.ascontiguousarray(padded).view("<i4").astype(np.int32, copy=False)


def from_words(words: npt.NDArray[Any], bits: int, columns: int) -> Codes:
    """The codes that `to_words` packed.

    Raises:
        EdgeqError: the rows are not those of so many codes.
    """
    if words.ndim != 2 or words.shape[1] != words_of(columns, bits):
        raise EdgeqError(f"{columns} codes of {bits} bits are {words_of(columns, bits)} words, not {words.shape[-1]}")
    raw = np.ascontiguousarray(words.astype("<i4", copy=False)).view(np.uint8)
    return unpack(np.ascontiguousarray(raw[:, : packed_width(columns, bits)]), bits, columns)
