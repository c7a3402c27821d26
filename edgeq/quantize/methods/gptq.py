"""GPTQ (arXiv 2210.17323): parameters found first by importance, then rounding with error feedback."""

from __future__ import annotations

from edgeq.quantize.grids.uniform import search
from edgeq.quantize.methods.composition import Method
from edgeq.quantize.solvers import gptq as solver

gptq = Method("gptq", solver=solver.gptq, search=search, needs=frozenset({"text"}))
