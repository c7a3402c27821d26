"""The knapsack against brute force."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.errors import EdgeqError
from edgeq.quantize.allocation.knapsack import Unit, solve

choice = st.tuples(st.integers(0, 40), st.floats(0, 10, allow_nan=False))
unit = st.lists(choice, min_size=1, max_size=4).map(lambda c: Unit(tuple(x for x, _ in c), tuple(y for _, y in c)))


def brute(units, budget):
    best = None
    for picked in product(*(range(len(u.costs)) for u in units)):
        cost = sum(u.costs[i] for u, i in zip(units, picked, strict=True))
        loss = sum(u.losses[i] for u, i in zip(units, picked, strict=True))
        if cost <= budget and (best is None or loss < best):
            best = loss
    return best


@settings(max_examples=400, deadline=None)
@given(st.lists(unit, min_size=1, max_size=6), st.integers(0, 160))
def test_as_brute_force(units, budget):
    best = brute(units, budget)
    if best is None:
        with pytest.raises(EdgeqError, match="budget"):
            solve(units, budget)
        return
    found = solve(units, budget)
    assert found.exact
    assert found.cost <= budget
    assert found.cost == sum(u.costs[i] for u, i in zip(units, found.choices, strict=True))
    assert found.loss == pytest.approx(best, abs=1e-9)
    assert found.bound <= best + 1e-9


def test_hundreds_of_matrices_exactly():
    """A 7B model's 224 matrices with six grids each, and sizes of three shapes."""
    rng = np.random.default_rng(0)
    sizes = rng.choice([4096 * 4096, 4096 * 11008, 1024 * 4096], 224)
    bits = (2.5, 3.5, 4.5, 5.5, 6.5, 8.5)
    units = [
        Unit(tuple(int(n * b / 8) for b in bits), tuple(float(s * 4.0**-b) for b in bits))
        for n, s in zip(sizes, rng.lognormal(0, 1.5, 224), strict=True)
    ]
    budget = int(sizes.sum() * 4.25 / 8)
    found = solve(units, budget)
    assert found.exact
    assert found.cost <= budget
    assert found.bound <= found.loss <= found.bound * 1.02
