"""SmoothQuant (arXiv 2211.10438): weights take over the size of large inputs; for 8-bit weights and activations."""

from __future__ import annotations

from edgeq.quantize.grids import find
from edgeq.quantize.methods.composition import Method
from edgeq.quantize.solvers.rtn import round_to_nearest
from edgeq.quantize.transforms.smooth import smooth

smoothquant = Method(
    "smoothquant",
    solver=round_to_nearest,
    search=find,
    transforms=(smooth,),
    needs=frozenset({"text"}),
    summary="evens out inputs and weights for 8-bit activations",
)
