"""Ternary weights: -scale, 0 or scale, at the scale with the least weighted error; and BitNet's absmean scale."""

from __future__ import annotations

from edgeq.checkpoint.tensor import Parameters
from edgeq.quantize.grids import find, kind_of
from edgeq.quantize.grids.ternary import absmean as absmean_scales
from edgeq.quantize.methods.composition import Floats, Method
from edgeq.quantize.solvers.rtn import round_to_nearest
from edgeq.scheme import Grid


def _absmean(weight: Floats, importance: Floats | None, grid: Grid) -> Parameters:
    """BitNet's scale of ternary weights; the embedding, on another grid, gets that grid's search."""
    return (absmean_scales if kind_of(grid) == "ternary" else find)(weight, importance, grid)


ternary = Method(
    "ternary", solver=round_to_nearest, search=find, summary="-scale, 0 or scale, at the best scale a group"
)
absmean = Method(
    "absmean",
    solver=round_to_nearest,
    search=_absmean,
    summary="-scale, 0 or scale, at the group's mean magnitude, as BitNet b1.58 has it",
)
