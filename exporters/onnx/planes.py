"""QuantizedTensor to the inputs of the functions in `edgeq.exporters.onnx.functions`.

Everything lies as the product wants it, (input channels, rows). Codes are cut into pieces of 8, 4, 2 or 1 bits, each
kind in a plane of its own: uint8 (channels * width / 8, rows), byte (j, r) with the pieces of channels j, j + n,
j + 2n, ... from its low bits up, n the plane's height. So unpacking is a shift, a mask and a reshape, with no shuffling
of columns. Group parameters are (groups, 1, rows), super-blocks' (supers, 1, rows), in the checkpoint's dtype.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.checkpoint.codebooks import codebook
from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.exporters.onnx.functions import PIECES, input_names, plane_names
from edgeq.scheme import Grid

Array = npt.NDArray[Any]
_BYTES = 1 << 22  # of codes transposed at once


@dataclass(frozen=True, slots=True)
class PlaneLayout:
    """What has to agree for matrices to be stored as one, and what they are padded to."""

    columns: int
    grid: Grid

    @property
    def channels(self) -> int:
        """Whole groups, super-blocks and bytes."""
        size = self.grid.group_size if self.grid.super_size in (None, -1) else self.grid.super_size
        unit = math.lcm(8, size) if size and size > 0 else 8
        return -(-self.columns // unit) * unit

    @property
    def groups(self) -> int:
        return 1 if self.grid.group_size == -1 else self.channels // self.grid.group_size

    @property
    def supers(self) -> int:
        return 1 if self.grid.super_size in (None, -1) else self.channels // (self.grid.super_size or 1)


@dataclass(frozen=True, slots=True)
class Plane:
    """One input of a function, before it is written: its parts fill `shape`."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    parts: Iterator[Array]


def planes(weights: Sequence[QuantizedTensor]) -> Iterator[Plane]:
    """The function's inputs for matrices of one layout, one below the other."""
    form = PlaneLayout(weights[0].shape[1], weights[0].grid)
    rows = sum(w.shape[0] for w in weights)
    low = 0
    for name, width in zip(plane_names(form.grid), PIECES[form.grid.bits], strict=True):
        height = form.channels * width // 8
        yield Plane(name, np.dtype(np.uint8), (height, rows), _pieces(weights, height, low, width))
        low += width
    fields = {"zero_points": "zero_points", "minima": "zero_points", "super_minima": "super_zeros"}
    for name in input_names(form.grid)[len(PIECES[form.grid.bits]) :]:
        if name == "table":
            table = codebook(str(form.grid.codebook))
            yield Plane(name, table.dtype, table.shape, iter([table]))
            continue
        values = [getattr(w, fields.get(name, name)) for w in weights]
        count = form.supers if name.startswith("super") else form.groups
        yield Plane(name, values[0].dtype, (count, 1, rows), iter([_spread(values, count)]))


def _pieces(weights: Sequence[QuantizedTensor], height: int, low: int, width: int) -> Iterator[Array]:
    step = max(1, _BYTES // sum(w.shape[0] for w in weights))
    for start in range(0, height, step):
        end = min(start + step, height)
        out = np.zeros((end - start, sum(w.shape[0] for w in weights)), np.uint8)
        for i in range(8 // width):
            codes = _channels(weights, i * height + start, i * height + end)
            out |= ((codes >> low) & ((1 << width) - 1)) << (i * width)
        yield out


def _channels(weights: Sequence[QuantizedTensor], start: int, end: int) -> Array:
    """Codes (end - start, rows) of some input channels, zero beyond the last."""
    part = np.concatenate([w.codes[:, start:end] for w in weights])
    return np.pad(part, ((0, 0), (0, end - start - part.shape[1]))).T


def _spread(values: Sequence[Array], count: int) -> Array:
    joined = np.concatenate(values)
    return np.pad(joined, ((0, 0), (0, count - joined.shape[1]))).T[:, None]
