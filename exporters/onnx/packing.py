"""QuantizedTensor to the layout of `MatMulNBits`.

Layout (onnxruntime, ContribOperators.md): codes uint8 (N, blocks, block * bits / 8), first channel in the low bits,
a ragged last block padded; scales (N, blocks); zero points uint8 (N, ceil(blocks * bits / 8)), packed alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.errors import EdgeqError
from edgeq.exporters.onnx.grids import block_size, has_kernel

Bytes = npt.NDArray[np.uint8]
_ROWS = 4096  # packed at once


@dataclass(frozen=True, slots=True)
class Layout:
    """What has to agree for two matrices to be stored as one."""

    columns: int
    bits: int
    block: int
    symmetric: bool

    @property
    def blocks(self) -> int:
        return -(-self.columns // self.block)


def layout(weight: QuantizedTensor) -> Layout:
    """Raises EdgeqError when the grid is not one of the kernels'."""
    block = block_size(weight.grid)
    if block is None or not has_kernel(weight):
        raise EdgeqError(f"onnxruntime has no kernel for this weight's grid: {weight.grid}")
    return Layout(weight.shape[1], weight.grid.bits, block, weight.grid.symmetric)


def codes(weight: QuantizedTensor) -> Iterator[Bytes]:
    """uint8 (rows, blocks, block * bits / 8), some rows at a time, so that a large embedding is not held twice."""
    form = layout(weight)
    for start in range(0, weight.shape[0], _ROWS):
        part = weight.codes[start : start + _ROWS]
        padded = np.full((len(part), form.blocks * form.block), 1 << (form.bits - 1), np.uint8)
        padded[:, : form.columns] = part
        yield pack_bits(padded, form.bits).reshape(len(part), form.blocks, -1)


def scales(weight: QuantizedTensor) -> npt.NDArray[np.float32]:
    """float32 (N, blocks)."""
    return _per_block(weight, weight.scales).astype(np.float32)


def zero_points(weight: QuantizedTensor) -> Bytes:
    """uint8 (N, blocks), one zero point a byte; the grid must not be symmetric."""
    assert weight.zero_points is not None
    return _per_block(weight, weight.zero_points).astype(np.uint8)


def pack_bits(codes: Bytes, bits: int) -> Bytes:
    """Codes (rows, n) -> bytes (rows, ceil(n * bits / 8)), the first code of a byte in its low bits."""
    per_byte = 8 // bits
    short = -codes.shape[1] % per_byte
    if short:
        codes = np.pad(codes, ((0, 0), (0, short)))
    out = codes[:, 0::per_byte].copy()
    for i in range(1, per_byte):
        out |= codes[:, i::per_byte] << (bits * i)
    return out


def _per_block(weight: QuantizedTensor, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Group parameters repeated for every block of the group."""
    form = layout(weight)
    repeat = form.blocks if weight.grid.group_size == -1 else weight.group_size // form.block
    return np.repeat(values, repeat, axis=1)[:, : form.blocks]
