"""An untied output head: quantized by the statistics of what the final norm gives it, in parts of its rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from edgeq.checkpoint.manifest import LayerReport
from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.checkpoint.weights import Weights, dense
from edgeq.quantize.block import aligned
from edgeq.quantize.guard import Judged, guarded
from edgeq.quantize.hidden import HiddenStates
from edgeq.quantize.methods.composition import Method
from edgeq.quantize.run_block import normed
from edgeq.quantize.sums import Sums
from edgeq.scheme import Grid

Floats = npt.NDArray[np.float32]
Tensor = torch.Tensor


class HeadJudge:
    """Quantizes parts of the head, each guarded by itself, and adds up what it saw.

    Args:
        states: outputs of the last block of the quantized stream.
        floats: those of the float stream, for a method that needs `cross`.
    """

    def __init__(
        self, source: Weights, method: Method, grid: Grid, states: HiddenStates, floats: HiddenStates | None
    ) -> None:
        self._method, self._grid = method, grid
        norm = aligned(dense(source.load("final_norm")))
        sums, float_sums = Sums(method.weigh), Sums()
        others = None if floats is None else floats.batches()
        with torch.no_grad():
            for batch in states.batches():
                x = normed(source.spec, norm, batch)
                if others is None:
                    sums.add(x)
                    continue
                float_x = normed(source.spec, norm, next(others))
                weights = sums.add(x, float_x)
                float_sums.add(float_x if weights is None else float_x * weights.sqrt()[:, None])
        self._statistics = sums.result()
        self._float_gram = None
        if others is not None:
            scale = float_sums.tokens / sums.weight if sums.weight else 0.0
            self._float_gram = float_sums.result().gram.mul_(scale)
        self._parts: list[Judged] = []

    def quantize(self, matrix: Floats) -> QuantizedTensor:
        """float32 rows of the head onto the grid."""
        energy = None
        if self._float_gram is not None:
            w = torch.from_numpy(np.ascontiguousarray(matrix))
            energy = float((w @ self._float_gram).mul_(w).sum(dtype=torch.float64))
        quantized, judged = guarded(self._method, matrix, self._grid, self._statistics, energy)
        self._parts.append(judged)
        return quantized

    def report(self) -> LayerReport:
        """Of all parts together."""
        size = sum(p.size for p in self._parts)
        before = sum(p.before * p.size for p in self._parts) / size if size else 0.0
        after = sum(p.after * p.size for p in self._parts) / size if size else 0.0
        return LayerReport(before, after, next(_fallbacks(self._parts), None))


def _fallbacks(parts: list[Judged]) -> Iterator[str]:
    return (p.fallback for p in parts if p.fallback is not None)
