"""What a quantization method is: a composition of a transform, a grid search and a solver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.checkpoint.weights import Weights
from edgeq.quantize.grids.uniform import Parameters
from edgeq.scheme import Grid

Floats = npt.NDArray[np.float32]
Transform = Callable[[Weights], Weights]  # rewrites the network into an equivalent one
Search = Callable[[Floats, Floats | None, Grid], Parameters]  # (weight, importance, grid) -> scales and zero points
Solver = Callable[[Floats, Parameters, Grid], QuantizedTensor]


@dataclass(frozen=True, slots=True)
class Method:
    name: str
    transform: Transform
    search: Search
    solver: Solver

    def quantize(self, weight: Floats, grid: Grid, importance: Floats | None = None) -> QuantizedTensor:
        """float32 (rows, columns) onto the grid; `importance` (columns,) weighs the error by input channel."""
        return self.solver(weight, self.search(weight, importance, grid), grid)


def unchanged(weights: Weights) -> Weights:
    """The transform of a method that has none."""
    return weights
