"""GPTQ (arXiv 2210.17323): parameters found first by importance, then rounding with error feedback."""

from __future__ import annotations

from edgeq.quantize.grids import find
from edgeq.quantize.methods.composition import Method
from edgeq.quantize.solvers import gptq as solver

gptq = Method(
    "gptq",
    solver=solver.gptq,
    search=find,
    needs=frozenset({"text"}),
    summary="rounds column after column, each error made good by the columns to come",
)
