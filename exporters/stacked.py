"""Stacked experts taken apart and put together, for exporters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.checkpoint.tensor import Parameters, QuantizedTensor
from edgeq.checkpoint.weights import Weight

Array = npt.NDArray[Any]


def expert_of(weight: Weight, e: int, experts: int) -> Weight:
    """Expert `e` (rows, columns) of matrices stacked as (experts, rows, columns), or one below the other."""
    if not isinstance(weight, QuantizedTensor):
        one: Weight = weight[e] if weight.ndim == 3 else weight.reshape(experts, -1, weight.shape[-1])[e]
        return one
    each = weight.shape[0] // experts
    part = slice(e * each, (e + 1) * each)
    return QuantizedTensor.of(weight.grid, weight.codes[part], weight.parameters.rows(part))


def in_turns(*parts: Array) -> Array:
    """Rows of matrices in turns: the first of each, the second of each, ..."""
    return parts[0] if len(parts) == 1 else np.stack(parts, 1).reshape(-1, parts[0].shape[-1])


def quantized_in_turns(weights: Sequence[QuantizedTensor]) -> QuantizedTensor:
    """Matrices of one grid with their rows in turns."""
    if len(weights) == 1:
        return weights[0]
    columns = zip(*(w.parameters.arrays() for w in weights), strict=True)
    parameters = Parameters(*(None if c[0] is None else in_turns(*c) for c in columns))  # type: ignore[arg-type]
    return QuantizedTensor.of(weights[0].grid, in_turns(*(w.codes for w in weights)), parameters)
