"""Which integer grids hold the values of other grids: see `edgeq.checkpoint.integers`."""

from __future__ import annotations

from functools import cache

from edgeq.checkpoint.codebooks import CODEBOOKS
from edgeq.scheme import Grid

_FACTORS = (1, 2)  # powers of two: dividing a scale by them is exact


def integer_bits(grid: Grid) -> int | None:
    """The fewest bits of an integer grid with the same values, but for a float number a group that is added where the
    grid has minima; None where there is none (nf4)."""
    if grid.kind == "float":
        return None
    if grid.codebook is None:
        return grid.bits
    values, _ = integers_of(grid.codebook)
    if not values:
        return None
    return next(b for b in range(1, 9) if -(1 << (b - 1)) <= min(values) and max(values) < 1 << (b - 1))


def integer_grid(grid: Grid, bits: int) -> Grid:
    """The grid that `as_integers` gives."""
    return Grid("int", bits, grid.group_size, "none" if grid.symmetric else "int", "f32")


@cache
def integers_of(name: str) -> tuple[tuple[int, ...], int]:
    """A codebook as integers, and what they have to be divided by; no integers where it is not evenly spaced enough."""
    for factor in _FACTORS:
        values = [value * factor for value in CODEBOOKS.get(name, (0.5,))]
        if all(value == int(value) and -128 <= value <= 127 for value in values):
            return tuple(map(int, values)), factor
    return (), 1
