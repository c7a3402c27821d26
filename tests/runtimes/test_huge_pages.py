"""Which memory goes into huge pages, and that its contents stay."""

from __future__ import annotations

import mmap
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgeq
from edgeq.runtimes.pages import HUGE, added, anonymous, collapse, mappings

MAPS = """\
55d000000000-55d000021000 rw-p 00000000 00:00 0                          [heap]
7f0000000000-7f0004000000 rw-p 00000000 00:00 0
7f0010000000-7f0010021000 r--p 00000000 08:01 123                        /usr/lib/libc.so.6
7f0020000000-7f0020021000 rw-p 00000000 08:01 123                        /usr/lib/libc.so.6
7f0030000000-7f0030021000 rw-s 00000000 00:01 0
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                          [stack]

nonsense
"""


def test_only_private_writable_memory_without_a_file_counts() -> None:
    assert anonymous(MAPS) == [(0x55D000000000, 0x55D000021000), (0x7F0000000000, 0x7F0004000000)]


def test_what_grew_is_cut_to_whole_huge_pages() -> None:
    before = [(4 * HUGE, 6 * HUGE)]
    assert added(before, [(0, 20 * HUGE + 5)]) == [(0, 4 * HUGE), (6 * HUGE, 20 * HUGE)]
    assert added(before, before) == []
    assert added([], [(100, HUGE + 100)]) == []


ranges = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=5).map(
    lambda pairs: [(start * HUGE // 2, (start + size) * HUGE // 2) for start, size in pairs]
)


@given(before=ranges, after=ranges)
def test_nothing_old_is_touched_and_nothing_large_is_missed(before: list, after: list) -> None:
    def pages(pieces: list) -> set[int]:
        return {p for start, end in pieces for p in range(start, end, HUGE // 2)}

    found = added(before, after)
    assert pages(found) <= pages(after) - pages(before)
    for at in pages(after) - pages(before):  # a piece is dropped only where no 4 MiB surround it
        around = {at + i * HUGE // 2 for i in range(-7, 8)}
        if not pages(found) & {at} and around <= pages(after) - pages(before) and len(after) == 1:
            raise AssertionError(f"{at:#x} lies within a large new range and was left out")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_contents_survive_and_the_call_says_how_much() -> None:
    before = mappings()
    memory = mmap.mmap(-1, 32 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # malloc may reuse what it has
    array = np.frombuffer(memory, np.int64)
    array[:] = np.arange(array.size)
    found = added(before, mappings())
    assert any(start <= array.ctypes.data + 16 * HUGE // 2 < end for start, end in found)
    assert 0 <= collapse(found) <= sum(end - start for start, end in found)
    assert np.array_equal(array, np.arange(array.size))


def test_a_range_that_is_gone_is_no_error() -> None:
    assert collapse([(HUGE, 3 * HUGE)]) == 0 or sys.platform != "linux"


def test_the_session_gives_the_same_with_and_without(artifact) -> None:
    with edgeq.load(artifact, threads=1, huge_pages=False) as plain, edgeq.load(artifact, threads=1) as huge:
        assert np.array_equal(plain.logits([1, 2, 3]), huge.logits([1, 2, 3]))
