"""What a quantization method is: a composition of transforms, a grid search, a solver and a refinement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from edgeq.checkpoint.tensor import Parameters, QuantizedTensor
from edgeq.scheme import Grid

if TYPE_CHECKING:  # torch only where a method needs it: `rtn` and `hqq` run on numpy alone
    import torch

    from edgeq.quantize.block import Block
    from edgeq.quantize.statistics import InputStatistics

Floats = npt.NDArray[np.float32]
Need = Literal["text", "float_stream", "cross"]

# (weight (rows, columns), importance (columns,) or None, grid) -> what the grid stores beside the codes
Search = Callable[[Floats, "Floats | None", Grid], Parameters]
# (weight, statistics of its input or None, grid, search) -> codes and parameters
Solver = Callable[[Floats, "InputStatistics | None", Grid, Search], QuantizedTensor]
# Rewrites a block in memory into an equivalent one that is easier to quantize.
BlockTransform = Callable[["Block"], None]
# Improves a block's quantized tensors together, against the float block's output.
Refinement = Callable[["Block"], None]

# Weights of calibration tokens in the statistics, by the input they make: (tokens, K) -> (tokens,), not negative.
TokenWeights = Callable[["torch.Tensor"], "torch.Tensor"]


@dataclass(frozen=True, slots=True)
class Method:
    """Attributes:
    solver, search: how codes and parameters of one matrix are found.
    transforms: applied to each block in order, before its first matrix.
    rotate: fold the rotations R1 and R2 into the whole network first.
    refine: applied to each block after its last matrix.
    allocation: how mixed precision is spread over the matrices, where it is (edgeq.quantize.allocate).
    refuses: why a matrix of so many columns can't be on a grid, or None when it can; None: what the grid allows.
    summary: one line for people.
    weigh: weights of tokens in the statistics; None: all alike.
    needs: `text`: calibration text; `float_stream`: also what the unquantized model's block reads and gives;
        `cross`: the statistics' `cross`, which implies the other two.
    """

    name: str
    solver: Solver
    search: Search
    transforms: tuple[BlockTransform, ...] = ()
    rotate: bool = False
    refine: Refinement | None = None
    needs: frozenset[Need] = frozenset()
    allocation: Literal["measured", "kurtosis"] | None = None
    refuses: Callable[[Grid, int], str | None] | None = None
    summary: str = ""
    weigh: TokenWeights | None = None

    def quantize(self, weight: Floats, grid: Grid, statistics: InputStatistics | None = None) -> QuantizedTensor:
        """float32 (rows, columns) onto the grid."""
        return self.solver(weight, statistics, grid, self.search)
