"""RTN: the grid's fine search, then round to nearest; and min-max, the baseline. Neither needs calibration text."""

from __future__ import annotations

from edgeq.checkpoint.tensor import Parameters
from edgeq.quantize import grids
from edgeq.quantize.methods.composition import Floats, Method
from edgeq.quantize.solvers.rtn import round_to_nearest
from edgeq.scheme import Grid


def min_max(weight: Floats, _: Floats | None, grid: Grid) -> Parameters:
    """`edgeq.quantize.grids.min_max` as a search: it knows no importance."""
    return grids.min_max(weight, grid)


rtn = Method(
    "rtn",
    solver=round_to_nearest,
    search=grids.find,
    summary="round to nearest, on scales and offsets found by a fine weighted search",
)
minmax = Method(
    "minmax", solver=round_to_nearest, search=min_max, summary="round to nearest over each group's range: the baseline"
)
