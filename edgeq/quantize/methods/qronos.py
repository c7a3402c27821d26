"""Qronos (arXiv 2505.11695): GPTQ towards the float model's output, on the quantized model's input."""

from __future__ import annotations

from edgeq.quantize.grids import find
from edgeq.quantize.methods.composition import Method
from edgeq.quantize.solvers import qronos as solver

qronos = Method(
    "qronos",
    solver=solver.qronos,
    search=find,
    needs=frozenset({"text", "float_stream", "cross"}),
    summary="gptq that also corrects what the layers before got wrong",
)
