"""AutoRound: the grid's search, then SignRound on each block (arXiv 2309.05516), in three efforts."""

from __future__ import annotations

from dataclasses import replace

from edgeq.quantize.block import Block
from edgeq.quantize.grids import find
from edgeq.quantize.methods.composition import Method, Need
from edgeq.quantize.refine.signround import Effort, signround
from edgeq.quantize.solvers.rtn import round_to_nearest

NEEDS: frozenset[Need] = frozenset({"text", "float_stream"})


def _default(block: Block) -> None:
    signround(block, Effort(200))


def _light(block: Block) -> None:
    signround(block, Effort(50, rate=5e-3))


def _best(block: Block) -> None:
    signround(block, Effort(1000))


autoround = Method(
    "autoround",
    solver=round_to_nearest,
    search=find,
    refine=_default,
    needs=NEEDS,
    summary="signed gradient descent on the rounding of each block (200 steps)",
)
autoround_light = replace(autoround, name="autoround-light", refine=_light, summary="autoround in 50 steps")
autoround_best = replace(autoround, name="autoround-best", refine=_best, summary="autoround in 1000 steps")
