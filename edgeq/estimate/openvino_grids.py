"""How the OpenVINO exporter stores experts: its product with the chosen ones takes codes of 4 and 8 bits only."""

from __future__ import annotations

from edgeq.checkpoint.integer_grids import integer_bits, integer_grid
from edgeq.scheme import Grid

_BITS = (4, 8)


def expert_grid(grid: Grid) -> Grid | None:
    """The grid with the same numbers that experts on `grid` are stored on; None: there is none (nf4)."""
    if grid.kind == "float" or (grid.kind == "int" and grid.bits in _BITS):
        return grid
    needed = integer_bits(grid)
    if needed is None or grid.zero == "float":
        return None
    return integer_grid(grid, next(b for b in _BITS if needed <= b))
