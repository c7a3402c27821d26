"""Rotation (QuaRot's R1 and R2, arXiv 2404.00456) and round to nearest; `rotate+gptq` solves with feedback."""

from __future__ import annotations

from edgeq.quantize.grids import find
from edgeq.quantize.methods.composition import Method
from edgeq.quantize.solvers.rtn import round_to_nearest

rotate = Method(
    "rotate",
    solver=round_to_nearest,
    search=find,
    rotate=True,
    summary="turns the network so that outliers are spread over all channels",
)
