"""Statistics of what a linear layer reads, gathered once per block and shared by all methods."""

from __future__ import annotations

from dataclasses import dataclass

import torch

Tensor = torch.Tensor


@dataclass(slots=True)
class InputStatistics:
    """Of the input x of the linear layers that share it, over `tokens` calibration tokens.

    Attributes:
        gram: float32 (K, K), mean of `w x x^T` (GPTQ's H without its factor 2, arXiv 2210.17323), where w is the
            token's weight (1 unless the method weighs tokens; the mean weight is 1).
        cross: float32 (K, K), mean of `w x_float x^T`: `x_float` is the same input in the unquantized model
            (Qronos, arXiv 2505.11695); None unless asked for.
        absmax, absmean, mean, minimum, maximum: float32 (K,) per channel.
        tokens: tokens seen; 0 for an expert that no token reached.
    """

    tokens: int
    gram: Tensor
    absmax: Tensor
    absmean: Tensor
    mean: Tensor
    minimum: Tensor
    maximum: Tensor
    cross: Tensor | None = None

    @property
    def importance(self) -> Tensor:
        """float32 (K,): the weighted mean square of each channel, the diagonal of the gram matrix."""
        return self.gram.diagonal()
