"""Which integer grids hold the values of other grids: see `edgeq.checkpoint.integers`."""

from __future__ import annotations

from functools import cache

from edgeq.checkpoint.codebooks import CODEBOOKS
from edgeq.scheme import GGML_GRIDS, Grid

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


def unreadable(grid: Grid) -> str | None:
    """Why edgeq can't say which numbers a tensor on `grid` has, or None when it can."""
    if grid.kind == "gguf" and grid.ggml_type not in GGML_GRIDS:
        return f"edgeq does not know the layout of {grid.ggml_type or 'this gguf type'}"
    if grid.codebook is not None and grid.codebook not in CODEBOOKS:
        return f"edgeq has no codebook {grid.codebook}"
    if grid.kind != "float" and not 1 <= grid.bits <= 8:
        return f"codes of {grid.bits} bits can't be stored, only 1 to 8"
    return None


def integer_grid(grid: Grid, bits: int) -> Grid:
    """The grid that `as_integers` and `as_integers_and_offsets` give. A scale that is stored as it is keeps its dtype;
    one that is multiplied out or divided is float32."""
    kept = grid.super_size is None and (grid.codebook is None or integers_of(grid.codebook)[1] == 1)
    return Grid("int", bits, grid.group_size, "none" if grid.symmetric else "int", grid.scale_dtype if kept else "f32")


@cache
def integers_of(name: str) -> tuple[tuple[int, ...], int]:
    """A codebook as integers, and what they have to be divided by; no integers where it is not evenly spaced enough."""
    for factor in _FACTORS:
        values = [value * factor for value in CODEBOOKS.get(name, (0.5,))]
        if all(value == int(value) and -128 <= value <= 127 for value in values):
            return tuple(map(int, values)), factor
    return (), 1
