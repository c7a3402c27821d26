"""QuantizedTensor to OpenVINO's constants: codes packed over the whole tensor, the first in the low bits of a byte."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.checkpoint.codebooks import codebook
from edgeq.checkpoint.integers import Shifted
from edgeq.checkpoint.pack import pack
from edgeq.checkpoint.tensor import QuantizedTensor, group_scales
from edgeq.exporters.openvino.storable import TYPE_BITS, Layout

Bytes = npt.NDArray[np.uint8]
_ROWS = 4096  # packed at once
# OCP Microscaling: sign, two bits of exponent, one of mantissa.
_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def codes(weight: QuantizedTensor, form: Layout) -> Iterator[Bytes]:
    """uint8 (rows, bytes of a row), some rows at a time, so that a large embedding is not held twice."""
    bits = TYPE_BITS[form.type]
    table = _translation(form.type)
    for start in range(0, weight.shape[0], _ROWS):
        part = weight.codes[start : start + _ROWS]
        yield pack(part if table is None else table[part], bits)


def scales(weight: QuantizedTensor, form: Layout) -> npt.NDArray[Any]:
    """(rows, blocks) in the layout's dtype: as the checkpoint has them, or the product of scale and super-scale."""
    stored = (
        weight.scales if weight.super_scales is None else group_scales(weight.grid, weight.parameters, form.columns)
    )
    return _per_block(weight, stored, form).astype(np.float16 if form.scale == "f16" else np.float32, copy=False)


def offsets(weight: Shifted, form: Layout) -> npt.NDArray[np.float32]:
    """float32 (rows, blocks)."""
    return _per_block(weight.integers, weight.offsets, form).astype(np.float32, copy=False)


def zero_points(weight: QuantizedTensor, form: Layout) -> Bytes:
    """uint8 (rows, blocks); the layout has one a block."""
    assert weight.zero_points is not None
    return _per_block(weight, weight.zero_points, form).astype(np.uint8, copy=False)


def table(kind: str) -> npt.NDArray[np.float32]:
    """What each code of a type stands for, before zero point and scale."""
    if kind == "nf4":
        return codebook("nf4")
    if kind == "f4e2m1":
        half = np.array(_E2M1, np.float32)
        return np.concatenate((half, -half))
    return np.arange(1 << TYPE_BITS[kind], dtype=np.float32)


def _translation(kind: str) -> Bytes | None:
    """The type's code for each of the checkpoint's; None: the same."""
    if kind in ("i4", "i8"):  # two's complement of code minus the middle
        bits = TYPE_BITS[kind]
        middle = 1 << (bits - 1)
        return ((np.arange(1 << bits) - middle) & ((1 << bits) - 1)).astype(np.uint8)
    if kind == "f4e2m1":
        values = table(kind)
        return np.array([int(np.flatnonzero(values == v)[0]) for v in codebook("fp4")], np.uint8)
    return None


def _per_block(weight: QuantizedTensor, values: npt.NDArray[Any], form: Layout) -> npt.NDArray[Any]:
    """Group parameters repeated for every block of the group."""
    return np.repeat(values, -(-weight.group_size // form.block), axis=1)[:, : form.blocks]
