"""AWQ (arXiv 2306.00978): scales folded into the block, then round to nearest; `awq+gptq` solves with feedback."""

from __future__ import annotations

from edgeq.quantize.grids import find
from edgeq.quantize.methods.composition import Method
from edgeq.quantize.solvers.rtn import round_to_nearest
from edgeq.quantize.transforms.awq import awq as scale_channels

awq = Method(
    "awq",
    solver=round_to_nearest,
    search=find,
    transforms=(scale_channels,),
    needs=frozenset({"text"}),
    summary="scales channels so that the ones that matter keep precision",
)
