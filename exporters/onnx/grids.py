"""Which grids an ONNX graph holds, and how: `edgeq.estimate.onnx_grids` knows the kernels' limits."""

from __future__ import annotations

from edgeq.checkpoint.integer_grids import unreadable
from edgeq.checkpoint.integers import Shifted, held_by
from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.checkpoint.weights import Weight
from edgeq.estimate.onnx_grids import Pack, block_size, kernel_grid
from edgeq.scheme import Grid


def refuses(grid: Grid) -> str | None:
    """Why a tensor on `grid` can't be stored without loss, or None when it can, if only for slow unpacking."""
    return unreadable(grid)


Stored = Weight | Shifted


def as_stored(weight: Stored, pack: Pack) -> Stored:
    """The weight as it is stored: on a kernel's integer grid where there is one, else as it is."""
    if not isinstance(weight, QuantizedTensor) or has_kernel(weight):
        return weight
    grid = kernel_grid(weight.grid, pack)
    return weight if grid is None else held_by(weight, grid.bits)


def has_kernel(weight: Stored) -> bool:
    """onnxruntime multiplies with the weight as it is: plain integers, one scale a group."""
    if not isinstance(weight, QuantizedTensor):
        return False
    grid = weight.grid
    plain = grid.kind == "int" and grid.codebook is None and grid.super_size is None
    return plain and kernel_grid(grid, "small") is not None


__all__ = ["as_stored", "block_size", "has_kernel", "kernel_grid", "refuses"]
