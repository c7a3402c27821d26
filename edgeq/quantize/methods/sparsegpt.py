"""SparseGPT (arXiv 2301.00774): half of the weights become zero, the others are rounded, all errors compensated."""

from __future__ import annotations

from functools import partial

from edgeq.quantize.grids import find
from edgeq.quantize.methods.composition import Method
from edgeq.quantize.solvers.sparsegpt import Sparsity, refuses
from edgeq.quantize.solvers.sparsegpt import sparsegpt as solver
from edgeq.scheme import Grid

HALF, TWO_OF_FOUR = Sparsity(0.5), Sparsity(0.5, of=4)


def _refuses(sparsity: Sparsity, grid: Grid, columns: int) -> str | None:
    return refuses(grid, sparsity, columns)


sparsegpt = Method(
    "sparsegpt",
    solver=partial(solver, sparsity=HALF),
    search=find,
    needs=frozenset({"text"}),
    refuses=partial(_refuses, HALF),
    summary="half of the weights zero, the rest rounded, errors made good",
)
sparsegpt_2_4 = Method(
    "sparsegpt-2:4",
    solver=partial(solver, sparsity=TWO_OF_FOUR),
    search=find,
    needs=frozenset({"text"}),
    refuses=partial(_refuses, TWO_OF_FOUR),
    summary="likewise, two zeros in every four",
)
