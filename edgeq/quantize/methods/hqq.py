"""HQQ: zero points by half-quadratic splitting, then round to nearest. Needs no calibration text."""

from __future__ import annotations

from edgeq.quantize.grids.hqq import search
from edgeq.quantize.methods.composition import Method
from edgeq.quantize.solvers.rtn import round_to_nearest

hqq = Method(
    "hqq", solver=round_to_nearest, search=search, summary="zero points that minimise an lp loss, without calibration"
)
