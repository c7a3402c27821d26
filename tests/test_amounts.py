"""Sizes and counts in words."""

from __future__ import annotations

import pytest

from edgeq.amounts import amount, count
from edgeq.plan.words import gb


@pytest.mark.parametrize(
    ("n", "said"),
    [
        (0, "0 bytes"), (999, "999 bytes"), (41_200, "41 KB"), (312_000, "0.3 MB"), (5_340_000, "5.3 MB"),
        (92_600_000, "92.6 MB"), (2_441_000_000, "2,441 MB"),
    ],
)  # fmt: skip
def test_amounts_of_bytes(n, said):
    assert amount(n) == said


@pytest.mark.parametrize(
    ("n", "said"),
    [
        (860, "860"), (1_240, "1.24K"), (120_400, "120K"), (999_700, "1.00M"), (1_243_000, "1.24M"),
        (134_515_008, "135M"), (999_800_000, "1.00B"), (8_030_000_000, "8.03B"), (30_500_000_000, "30.5B"),
        (405_000_000_000, "405B"),
    ],
)  # fmt: skip
def test_counts(n, said):
    assert count(n) == said


def test_a_small_model_has_a_size_in_gigabyte_words_too():
    assert [gb(n) for n in (312_000, 9_700_000, 12_300_000, 840e6, 4.35e9)] == [
        "0.3 MB", "9.7 MB", "12 MB", "840 MB", "4.35 GB",
    ]  # fmt: skip
