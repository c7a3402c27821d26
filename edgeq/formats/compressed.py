"""compressed-tensors' layouts of integer weights, as its package (0.20), transformers and vLLM use them.

Codes are signed, less `2**(bits-1)` than a checkpoint's. `pack-quantized`: `weight_packed` int32 (rows, words),
packed along the columns; `weight_scale` float (rows, groups), `weight_zero_point` int32 (words, groups), packed along
the rows, `weight_shape` int64 (2). `int-quantized`: `weight` int8 as it is, `weight_scale`, `weight_zero_point` int8
(rows, groups). Static inputs have an `input_scale` float (1) and an `input_zero_point` int8 or int16 (1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeq.checkpoint.activation import ActivationGrid
from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.errors import EdgeqError
from edgeq.formats.uniform import Array, as_uniform, assemble, group_of, uniform
from edgeq.formats.words import from_words, to_words, words_of
from edgeq.scheme import Grid

PACKED = ("weight_packed", "weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx")
PLAIN = ("weight", "weight_scale", "weight_zero_point")


def refuses(grid: Grid) -> str | None:
    """Why neither layout can hold this grid losslessly, or None when one can."""
    if as_uniform(grid) is None:
        return "compressed-tensors stores evenly spaced values with integer zero points"
    return None


def refuses_shape(rows: int, columns: int, grid: Grid) -> str | None:
    """Why the layouts can't hold a matrix of this shape, or None when they can."""
    if grid.group_size != -1 and columns % grid.group_size:
        return f"compressed-tensors needs rows of whole groups of {grid.group_size}, this has {columns}"
    return None


def to_packed(q: QuantizedTensor) -> dict[str, Array]:
    """The parts of one matrix in `pack-quantized`."""
    q = uniform(q)
    found = {
        "weight_packed": to_words(q.codes, q.grid.bits),
        "weight_scale": q.scales,
        "weight_shape": np.array(q.shape, np.int64),
    }
    if q.zero_points is not None:
        found["weight_zero_point"] = np.ascontiguousarray(to_words(q.zero_points.T, q.grid.bits).T)
    return found


def to_plain(q: QuantizedTensor) -> dict[str, Array]:
    """The parts of one 8-bit matrix in `int-quantized`."""
    q = uniform(q)
    found = {"weight": _signed(q.codes), "weight_scale": q.scales}
    if q.zero_points is not None:
        found["weight_zero_point"] = _signed(q.zero_points)
    return found


def from_packed(parts: Mapping[str, Array], columns: int, stated: int | None, bits: int, where: str) -> QuantizedTensor:
    """The matrix that these parts hold.

    Args:
        parts: of PACKED; without zero points the grid is symmetric.
        stated, bits: of the configuration.

    Raises:
        EdgeqError: shapes that contradict each other, or input channels in another order.
    """
    packed, scales = parts["weight_packed"], _matrix(parts["weight_scale"])
    rows = packed_rows(packed.shape, columns, bits, where)
    if tuple(parts["weight_shape"]) != (rows, columns):
        raise EdgeqError(f"its weight_shape is {parts['weight_shape'].tolist()}, not {[rows, columns]}", where=where)
    group = group_of(columns, scales.shape[1], stated, where)
    if "weight_g_idx" in parts:
        size = columns if group == -1 else group
        if not np.array_equal(parts["weight_g_idx"], np.arange(columns) // size):
            raise EdgeqError(
                "its input channels are grouped in the order of their activations (actorder)",
                where=where,
                hint="No edgeq grid keeps that without loss: take one quantized with actorder weight or none",
            )
    zeros = parts.get("weight_zero_point")
    if zeros is not None:
        zeros = from_words(np.ascontiguousarray(zeros.T), bits, rows).T
    scales = _per_row(scales, rows)
    return assemble(bits, group, from_words(packed, bits, columns), scales, zeros, where)


def from_plain(parts: Mapping[str, Array], stated: int | None, where: str) -> QuantizedTensor:
    """The 8-bit matrix that these parts hold. Raises as `from_packed` does."""
    weight, scales = parts["weight"], _matrix(parts["weight_scale"])
    rows, columns = weight.shape
    group = group_of(columns, scales.shape[1], stated, where)
    zeros = parts.get("weight_zero_point")
    unsigned = None if zeros is None else _per_row(_unsigned(_matrix(zeros)), rows)
    return assemble(8, group, _unsigned(weight), _per_row(scales, rows), unsigned, where)


def packed_rows(shape: tuple[int, ...], columns: int, bits: int, where: str) -> int:
    """Output channels of a `weight_packed` of this shape.

    Raises:
        EdgeqError: it has other input channels, or is packed as an older compressed-tensors did.
    """
    if len(shape) != 2 or shape[1] != words_of(columns, bits):
        raise EdgeqError(
            f"a weight_packed of shape {list(shape)} for {columns} input channels of {bits} bits",
            where=where,
            hint="The weights and the configuration are not of the same model, or an old compressed-tensors wrote it",
        )
    return shape[0]


def to_input(grid: ActivationGrid) -> dict[str, Array]:
    """The parts that say what a layer's input is rounded to; a dynamic grid needs none."""
    if grid.scale is None or grid.zero_point is None:
        return {}
    found: dict[str, Array] = {"input_scale": np.array([grid.scale], np.float32)}
    if not grid.symmetric:
        kind = np.int8 if grid.bits <= 8 else np.int16
        found["input_zero_point"] = np.array([grid.zero_point - (1 << (grid.bits - 1))], kind)
    return found


def from_input(args: Mapping[str, Any], parts: Mapping[str, Array], where: str) -> ActivationGrid:
    """What a layer's input is rounded to, by its group's `input_activations` and its own parts.

    Raises:
        EdgeqError: something other than integers of a scale a token, or one scale for all.
    """
    bits, symmetric = int(args.get("num_bits", 8)), bool(args.get("symmetric", True))
    strategy, dynamic = args.get("strategy") or "tensor", args.get("dynamic", False)
    if args.get("type", "int") != "int" or (dynamic, strategy) not in ((True, "token"), (False, "tensor")):
        what = f"{'dynamic' if dynamic else 'static'} {args.get('type', 'int')} inputs, one scale a {strategy}"
        raise EdgeqError(what, where=where, hint="edgeq keeps dynamic integers a token, and static ones a tensor")
    if dynamic:
        return ActivationGrid("dynamic", bits, symmetric)
    if "input_scale" not in parts or parts["input_scale"].size != 1:
        raise EdgeqError("static inputs without their input_scale", where=where)
    zero = 0 if symmetric else int(parts.get("input_zero_point", np.zeros(1)).reshape(-1)[0]) + (1 << (bits - 1))
    return ActivationGrid("static", bits, symmetric, float(parts["input_scale"].reshape(-1)[0]), zero)


def _signed(codes: Array) -> Array:
    return (codes ^ np.uint8(128)).view(np.int8)


def _unsigned(codes: Array) -> Array:
    return np.ascontiguousarray(codes.astype(np.int8, copy=False)).view(np.uint8) ^ np.uint8(128)


def _matrix(values: Array) -> Array:
    """(rows, groups) of what may be one number for all, or one a row."""
    return values.reshape(-1, 1) if values.ndim < 2 else values


def _per_row(values: Array, rows: int) -> Array:
    """A number for the whole matrix is repeated for each of its rows."""
    return np.repeat(values, rows, 0) if values.shape == (1, 1) and rows > 1 else values
