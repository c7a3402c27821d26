"""Activations as a runtime with 8-bit inputs sees them: rounded to their grid, in float32."""

from __future__ import annotations

import torch

from edgeq.checkpoint.activation import ActivationGrid

Tensor = torch.Tensor
TINIEST = float(torch.finfo(torch.float32).tiny)


def fake_quantized(x: Tensor, grid: ActivationGrid) -> Tensor:
    """The values that (..., width) inputs take on the grid, in x's dtype. A token is a row of the last axis."""
    wide = x.float()
    low, high = grid.codes
    if grid.scale is not None and grid.zero_point is not None:
        scale, zero = torch.tensor(grid.scale, dtype=torch.float32), torch.tensor(float(grid.zero_point))
    else:
        scale, zero = _of_tokens(wide, grid)
    codes = torch.clamp(torch.round(wide / scale) + zero, low, high)
    return ((codes - zero) * scale).to(x.dtype)


def _of_tokens(x: Tensor, grid: ActivationGrid) -> tuple[Tensor, Tensor]:
    """Scale and zero point of every token, (..., 1)."""
    low, high = grid.codes
    if grid.symmetric:
        scale = (x.abs().amax(-1, keepdim=True) / high).clamp_min(TINIEST)
        return scale, torch.zeros_like(scale)
    bottom, top = x.amin(-1, keepdim=True).clamp_max(0), x.amax(-1, keepdim=True).clamp_min(0)
    scale = ((top - bottom) / (high - low)).clamp_min(TINIEST)
    return scale, torch.round(-bottom / scale)
