"""NF4 (QLoRA, arXiv 2305.14314): quantiles of a normal distribution. The grid is NF4's; the scale a group is searched
by weighted error rather than set to the largest weight, and is quantized a second time where the grid says so."""

from __future__ import annotations

from edgeq.quantize.grids import find
from edgeq.quantize.methods.composition import Method
from edgeq.quantize.solvers.rtn import round_to_nearest

nf4 = Method(
    "nf4", solver=round_to_nearest, search=find, summary="values of a codebook (nf4, fp4), the scale searched a group"
)
