"""SparseGPT (arXiv 2301.00774): half of the weights become zero, the others are rounded, all errors compensated."""

from __future__ import annotations

from functools import partial

from edgeq.quantize.grids import find
from edgeq.quantize.methods.composition import Method
from edgeq.quantize.solvers.sparsegpt import Sparsity
from edgeq.quantize.solvers.sparsegpt import sparsegpt as solver

sparsegpt = Method(
    "sparsegpt",
    solver=partial(solver, sparsity=Sparsity(0.5)),
    search=find,
    needs=frozenset({"text"}),
    summary="half of the weights zero, the rest rounded, errors made good",
)
sparsegpt_2_4 = Method(
    "sparsegpt-2:4",
    solver=partial(solver, sparsity=Sparsity(0.5, of=4)),
    search=find,
    needs=frozenset({"text"}),
    summary="likewise, two zeros in every four",
)
