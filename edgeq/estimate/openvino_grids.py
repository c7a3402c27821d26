"""How the OpenVINO exporter stores a grid: on a type of OpenVINO's that holds the same numbers, and in which size."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

from edgeq.checkpoint.integer_grids import integer_bits, integer_grid
from edgeq.scheme import Grid

NATIVE = ("nf4", "fp4", "ternary")  # codebooks with a type of their own: nf4, f4e2m1, u2
_BITS = (2, 4, 8)
_EXPERT_BITS = (4, 8)  # of its product with chosen experts


@lru_cache(maxsize=512)
def stored_grid(grid: Grid) -> Grid | None:
    """The grid with the same numbers that a matrix on `grid` is stored on; None: there is none.

    Of a grid with minima those are apart, one float32 number a group, which is added; where a minimum moved to the
    middle of the codes is no exact float32 number, which no real model was seen to have, zero points are stored too.
    """
    if grid.kind == "float" or (grid.kind == "codebook" and grid.codebook in NATIVE):
        return grid
    stored = _integer(grid, _BITS)
    return stored if stored is None or grid.zero != "float" else replace(stored, zero="none")


@lru_cache(maxsize=512)
def expert_grid(grid: Grid) -> Grid | None:
    """Likewise for experts; None: there is none (nf4, minima)."""
    if grid.kind == "float":
        return grid
    return None if grid.zero == "float" else _integer(grid, _EXPERT_BITS)


def _integer(grid: Grid, widths: tuple[int, ...]) -> Grid | None:
    if grid.kind == "int" and grid.bits in widths and grid.zero != "float" and grid.super_size is None:
        return grid
    needed = integer_bits(grid)
    bits = None if needed is None else next((b for b in widths if needed <= b), None)
    return None if bits is None else integer_grid(grid, bits)


def npu_takes(grid: Grid) -> bool:
    """The NPU's compiler takes linear layers on this grid: symmetric integers of 4 bits in groups of 128 or rows."""
    stored = stored_grid(grid)
    if stored is None or grid.zero != "none":
        return False
    return stored.kind == "int" and stored.bits == 4 and stored.group_size in (-1, 128)


def matrix_bytes(
    rows: int, columns: int, grid: Grid, *, looked_up: bool = False, multiplied: bool = True
) -> int | None:
    """Bytes of a (rows, columns) matrix in the file; None: it is not stored.

    Args:
        looked_up: rows are looked up, which of 2-bit ones takes the zero points a byte each.
        multiplied: inputs are multiplied with it, which takes them packed.
    """
    stored = stored_grid(grid)
    if stored is None or stored.kind == "float":
        return None if stored is None else rows * columns * stored.bits // 8
    size = columns if stored.group_size == -1 else math.gcd(stored.group_size, columns)
    blocks = rows * -(-columns // size)
    wide = 4 if stored.scale_dtype == "f32" or stored.super_size is not None else 2
    apart = looked_up and stored.bits == 2
    zeros = _packed(blocks, stored.bits) * (multiplied or not apart) + blocks * apart
    offsets = 4 * blocks if grid.zero == "float" else 0
    return _packed(rows * columns, stored.bits) + wide * blocks + zeros * (not stored.symmetric) + offsets


def _packed(codes: int, bits: int) -> int:
    return -(-codes * bits // 8)
