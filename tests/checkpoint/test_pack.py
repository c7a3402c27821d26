"""Packing is a round trip for every width, and is the layout its docstring says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.checkpoint.pack import pack, packed_width, unpack
from edgeq.errors import EdgeqError


@settings(max_examples=200, deadline=None)
@given(bits=st.integers(1, 8), rows=st.integers(0, 9), columns=st.integers(1, 70), seed=st.integers(0, 99))
def test_round_trip(bits: int, rows: int, columns: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 1 << bits, (rows, columns)).astype(np.uint8)
    packed = pack(codes, bits)
    assert packed.shape == (rows, packed_width(columns, bits))
    assert np.array_equal(unpack(packed, bits, columns), codes)


@given(bits=st.integers(1, 8), codes=st.lists(st.integers(0, 255), min_size=1, max_size=40))
def test_layout_is_one_little_endian_number(bits: int, codes: list[int]) -> None:
    small = [c % (1 << bits) for c in codes]
    number = sum(c << (bits * i) for i, c in enumerate(small))
    packed = pack(np.array([small], np.uint8), bits)
    assert packed.tobytes() == number.to_bytes(packed_width(len(small), bits), "little")


def test_more_rows_than_one_chunk() -> None:
    codes = np.random.default_rng(0).integers(0, 8, (1100, 1000)).astype(np.uint8)
    assert np.array_equal(unpack(pack(codes, 3), 3, 1000), codes)


def test_refuses_what_does_not_fit() -> None:
    with pytest.raises(EdgeqError, match="does not fit"):
        pack(np.array([[16]], np.uint8), 4)
    with pytest.raises(EdgeqError, match="can't be packed"):
        pack(np.zeros((1, 1), np.uint8), 9)
    with pytest.raises(EdgeqError, match="need other"):
        unpack(np.zeros((1, 3), np.uint8), 4, 8)
