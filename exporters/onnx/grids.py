"""Which grids an ONNX graph holds, and how: `edgeq.estimate.onnx_grids` knows the kernels' limits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeq.checkpoint.codebooks import CODEBOOKS
from edgeq.checkpoint.integers import as_integers, as_integers_and_offsets
from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.checkpoint.weights import Weight
from edgeq.estimate.onnx_grids import Pack, block_size, kernel_grid
from edgeq.scheme import GGML_GRIDS, Grid


def refuses(grid: Grid) -> str | None:
    """Why a tensor on `grid` can't be stored without loss, or None when it can, if only for slow unpacking."""
    if grid.kind == "gguf" and grid.ggml_type not in GGML_GRIDS:
        return f"edgeq does not know the layout of {grid.ggml_type or 'this gguf type'}"
    if grid.codebook is not None and grid.codebook not in CODEBOOKS:
        return f"edgeq has no codebook {grid.codebook}"
    if grid.kind != "float" and not 1 <= grid.bits <= 8:
        return f"codes of {grid.bits} bits can't be stored, only 1 to 8"
    return None


@dataclass(frozen=True, slots=True)
class Shifted:
    """A grid with minima as a kernel's integers, and offsets float32 (rows, groups) that are added to their groups."""

    integers: QuantizedTensor
    offsets: npt.NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, int]:
        return self.integers.shape


Stored = Weight | Shifted


def as_stored(weight: Stored, pack: Pack) -> Stored:
    """The weight as it is stored: on a kernel's integer grid where there is one, else as it is."""
    if not isinstance(weight, QuantizedTensor) or has_kernel(weight):
        return weight
    grid = kernel_grid(weight.grid, pack)
    if grid is None:
        return weight
    if weight.grid.zero == "float":
        return Shifted(*as_integers_and_offsets(weight, grid.bits))
    return as_integers(weight, grid.bits)


def has_kernel(weight: Stored) -> bool:
    """onnxruntime multiplies with the weight as it is: plain integers, one scale a group."""
    if not isinstance(weight, QuantizedTensor):
        return False
    grid = weight.grid
    plain = grid.kind == "int" and grid.codebook is None and grid.super_size is None
    return plain and kernel_grid(grid, "small") is not None


__all__ = ["as_stored", "block_size", "has_kernel", "kernel_grid", "refuses"]
