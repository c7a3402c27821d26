"""RTN: a fine search of scale and zero point, then round to nearest. Needs no calibration text."""

from __future__ import annotations

from edgeq.quantize.grids.uniform import search
from edgeq.quantize.methods.composition import Method
from edgeq.quantize.solvers.rtn import round_to_nearest

rtn = Method("rtn", solver=round_to_nearest, search=search)
