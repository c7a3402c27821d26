"""Mixed precision: a budget spread over the matrices by an exact knapsack, then GPTQ (or what else is asked for)."""

from __future__ import annotations

from edgeq.quantize.grids import find
from edgeq.quantize.methods.composition import Method
from edgeq.quantize.solvers.rtn import round_to_nearest

mixed = Method(
    "mixed",
    solver=round_to_nearest,
    search=find,
    allocation="measured",
    needs=frozenset({"text"}),
    summary="bits where the measured sensitivity says; add a solver: mixed+gptq",
)
omq = Method(
    "omq",
    solver=round_to_nearest,
    search=find,
    allocation="kurtosis",
    summary="bits by the kurtosis of the weights: a baseline that needs no text",
)
