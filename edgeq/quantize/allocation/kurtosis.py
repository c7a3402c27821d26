"""Kurtosis: the sensitivity that needs no text. The heavier a matrix' tails, the more bits it gets (arXiv 2503.06518).

A baseline: one criterion alone is known not to be enough (NSDS, 2603.17354); `sensitivity` measures instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edgeq.checkpoint.weights import Weights, dense
from edgeq.scheme import Grid


def kurtosis(weight: npt.NDArray[np.float32]) -> float:
    """Fourth standardized moment, 3 for a normal distribution; 0 of a constant."""
    x = weight.astype(np.float64)
    x -= x.mean()
    variance = np.square(x).mean()
    return float(np.square(np.square(x)).mean() / variance**2) if variance else 0.0


def kurtosis_losses(source: Weights, choices: Mapping[str, Sequence[Grid]]) -> dict[str, dict[Grid, float]]:
    """A loss of every matrix on every grid: its weights times its kurtosis times the step's square, `4**-bits`."""
    found = {}
    for name, grids in choices.items():
        weight = dense(source.load(name))
        heavy = kurtosis(weight) * weight.size
        found[name] = {g: 0.0 if g.kind == "float" else heavy * 4.0**-g.bits for g in grids}
    return found
