"""Ternary weights: -scale, 0 or scale, at the scale with the least weighted error; and BitNet's absmean scale."""

from __future__ import annotations

from edgeq.quantize.grids import ternary as grid
from edgeq.quantize.methods.composition import Method
from edgeq.quantize.solvers.rtn import round_to_nearest

ternary = Method(
    "ternary", solver=round_to_nearest, search=grid.search, summary="-scale, 0 or scale, at the best scale a group"
)
absmean = Method(
    "absmean",
    solver=round_to_nearest,
    search=grid.absmean,
    summary="-scale, 0 or scale, at the group's mean magnitude, as BitNet b1.58 has it",
)
