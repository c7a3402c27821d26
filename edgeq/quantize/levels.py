"""Levels: the values that every group of a weight may take, as solvers see them, whatever the grid.

On any grid a weight is `table[code] * scale + offset` with one scale and one offset a group: the table counts
0, 1, 2, ... on uniform grids (integer and float zero points, llama.cpp's block types) and is the codebook on others.
A solver that works on levels works on all grids.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from edgeq.checkpoint.codebooks import codebook
from edgeq.checkpoint.tensor import Parameters, group_offsets, group_scales
from edgeq.scheme import Grid

Tensor = torch.Tensor


@dataclass(frozen=True, slots=True)
class Levels:
    """Attributes:
    table: float32 (levels,), ascending.
    scale, offset: float32 (rows, groups). A scale may be negative, or zero (then every code gives the offset).
    group_size: columns of a group (the last may be ragged).
    columns: of the weight.
    uniform: the table counts from 0 in steps of 1.
    """

    table: Tensor
    scale: Tensor
    offset: Tensor
    group_size: int
    columns: int
    uniform: bool

    @classmethod
    def of(cls, grid: Grid, parameters: Parameters, columns: int) -> Levels:
        uniform = grid.codebook is None
        table = np.arange(grid.levels, dtype=np.float32) if uniform else codebook(grid.codebook or "")
        return cls(
            torch.from_numpy(table),
            torch.from_numpy(np.ascontiguousarray(group_scales(grid, parameters, columns))),
            torch.from_numpy(np.ascontiguousarray(group_offsets(grid, parameters, columns))),
            columns if grid.group_size == -1 else grid.group_size,
            columns,
            uniform,
        )

    def spread(self, per_group: Tensor) -> Tensor:
        """(rows, groups) -> (rows, columns)."""
        return per_group.repeat_interleave(self.group_size, dim=1)[:, : self.columns]

    def nearest(self, weight: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
        """Codes (same shape as `weight`, float32 whole numbers) of the nearest levels; scale and offset broadcast."""
        safe = torch.where(scale == 0, torch.ones_like(scale), scale)
        steps = (weight - offset) / safe
        if self.uniform:
            return steps.round_().clamp_(0, len(self.table) - 1)
        middles = (self.table[1:] + self.table[:-1]) / 2
        return torch.bucketize(steps, middles).to(torch.float32)

    def values(self, codes: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
        """float32 values of codes (whole numbers of any dtype)."""
        level = codes.to(torch.float32) if self.uniform else self.table[codes.long()]
        return level * scale + offset

    def round(self, weight: Tensor) -> Tensor:
        """Codes of a whole (rows, columns) weight, each rounded to nearest."""
        return self.nearest(weight, self.spread(self.scale), self.spread(self.offset))
