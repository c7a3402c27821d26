"""Weight matrices in the pattern that the plugins keep compressed.

    Constant codes [N, blocks, block] -> Convert f32 -> Subtract Convert(zero points) -> Multiply Convert(f16 scales)
    -> Reshape [N, K] -> MatMul

All arithmetic is float32, so that what the graph says is what the checkpoint's `dequantize` computes, bit for bit.

No plugin multiplies with `integer * scale + minimum` compressed. What the minima add is a small product of its own:
`sum(x * (integer + offset)) = sum(x * integer) + sum over groups(sum(x in the group) * offset)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as op
from openvino import opset15

from edgeq.checkpoint.integers import Shifted
from edgeq.checkpoint.pack import pack
from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.checkpoint.weights import Weight
from edgeq.exporters.openvino import packing
from edgeq.exporters.openvino.graph import Value, constant, integers, joined, named, out, reshape
from edgeq.exporters.openvino.spool import Spool
from edgeq.exporters.openvino.storable import ROWS_COMPRESSED, TYPE_BITS, Held, Layout, as_stored, layout_of
from edgeq.scheme import Grid

Floats = npt.NDArray[np.float32]
HEAD = "@head"  # ends the name of a tied matrix where the head multiplies by it
OFFSETS = "@offsets"  # ends the name of what is added to a matrix of integers, (rows, blocks)


@dataclass(frozen=True, slots=True)
class Stored:
    """A matrix's constants, all but `codes` where its layout has them; `data` are the bytes of `codes`."""

    form: Layout
    rows: int
    data: npt.NDArray[np.uint8]
    codes: Value
    zeros: Value | None = None
    scales: Value | None = None
    offsets: Value | None = None


class Matrices:
    """Emits products with weight matrices, whose nodes are named after the tensors they hold."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._stored: dict[str, Stored] = {}

    def product(self, x: Value, names: Sequence[str], weights: Sequence[tuple[Weight, Grid]]) -> Value:
        """`x @ concat(weights).T`. Matrices of one layout become one product."""
        held = [as_stored(weight) for weight, _ in weights]
        forms = {layout_of(one, grid) for one, (_, grid) in zip(held, weights, strict=True)}
        if len(forms) > 1:
            return joined([self.product(x, [n], [w]) for n, w in zip(names, weights, strict=True)], -1)
        name = "+".join(names)
        stored = self._store(name, forms.pop(), held)
        return _product(x, stored, name)

    def rows(self, ids: Value, name: str, weight: Weight, grid: Grid) -> Value:
        """Rows of an embedding; `tied_product` may then use the same stored matrix."""
        held = as_stored(weight)
        stored = self._store(name, layout_of(held, grid), [held])
        self._stored[name] = stored
        if not stored.form.quantized or stored.form.type in ROWS_COMPRESSED:
            rows = _gather(_matrix(stored), ids)
        else:
            rows = self._unpacked_rows(ids, stored, _quantized(held))
        return named(_with_offsets(rows, ids, stored), name)

    def tied_product(self, x: Value, name: str) -> Value:
        """`x @ stored.T`: the same constants, converted once more, since what is shared would be computed each time."""
        return _product(x, self._stored[name], name + HEAD)

    def _store(self, name: str, form: Layout, weights: Sequence[Held]) -> Stored:
        """Write matrices one below the other; only one is unpacked at a time."""
        rows = sum(w.shape[0] for w in weights)
        if not form.quantized:
            dtype = np.float16 if form.type == "f16" else np.float32
            plain = (w.astype(dtype, copy=False) for w in weights if isinstance(w, np.ndarray))
            data = self._spool.write(plain)
            return Stored(form, rows, data, self._spool.constant(form.type, (rows, form.columns), data))
        quantized = [_quantized(w) for w in weights]
        shape = (rows, form.columns) if form.blocks == 1 else (rows, form.blocks, form.block)
        single = (rows, 1) if form.blocks == 1 else (rows, form.blocks, 1)
        data = self._spool.write(p for w in quantized for p in packing.codes(w, form))
        codes = self._spool.constant(form.type, shape, data)
        zeros = None
        if form.zeros:
            flat = np.concatenate([packing.zero_points(w, form) for w in quantized]).reshape(1, -1)
            zeros = self._spool.constant(form.type, single, self._spool.write([pack(flat, TYPE_BITS[form.type])]))
        elif form.middle is not None:
            zeros = constant(form.middle, np.uint8)
        scales = self._spool.write(packing.scales(w, form) for w in quantized)
        stored = Stored(form, rows, data, codes, zeros, self._spool.constant(form.scale, single, scales))
        if not form.offsets:
            return stored
        added = self._spool.write(packing.offsets(w, form) for w in weights if isinstance(w, Shifted))
        constants = self._spool.constant("f32", (rows, form.blocks), added)
        return replace(stored, offsets=named(constants, name + OFFSETS))

    def _unpacked_rows(self, ids: Value, stored: Stored, weight: QuantizedTensor) -> Value:
        """Rows of a table of a type that the plugins would unpack as a whole: its bytes are looked up, then its codes.

        The bytes are a second constant in the graph, but the same ones in the file. Zero points, which lie across
        bytes, are there once more, one a byte.
        """
        form, bits = stored.form, TYPE_BITS[stored.form.type]
        each = 8 // bits
        raw = self._spool.constant("u8", (stored.rows, form.columns // each), stored.data)
        found = out(op.convert(_gather(raw, ids), "i32"))
        shifted = [
            found,
            *(out(opset15.bitwise_right_shift(found, constant(bits * i, np.int32))) for i in range(1, each)),
        ]
        codes = [out(op.bitwise_and(s, constant((1 << bits) - 1, np.int32))) for s in shifted]
        columns = joined([out(op.unsqueeze(c, integers(-1))) for c in codes], -1)
        table = packing.table(form.type) - np.float32(form.middle or 0)
        x = out(op.gather(constant(table), reshape(columns, 0, 0, form.blocks, form.block), constant(0, np.int64)))
        if form.zeros:
            zeros = self._spool.write([packing.zero_points(weight, form)])
            found = _gather(self._spool.constant("u8", (stored.rows, form.blocks), zeros), ids)
            x = out(op.subtract(x, reshape(_floats(found), 0, 0, form.blocks, 1)))
        assert stored.scales is not None
        scales = reshape(_floats(_gather(stored.scales, ids)), 0, 0, form.blocks, 1)
        return reshape(out(op.multiply(x, scales)), 0, 0, form.columns)


def _quantized(held: Held) -> QuantizedTensor:
    weight = held.integers if isinstance(held, Shifted) else held
    assert isinstance(weight, QuantizedTensor), "its layout is not a float one"
    return weight


def _matrix(stored: Stored) -> Value:
    """float32 (rows, columns), by nodes of its own over the stored constants."""
    form, x = stored.form, _floats(stored.codes)
    if stored.zeros is not None:
        x = out(op.subtract(x, _floats(stored.zeros)))
    if stored.scales is not None:
        x = out(op.multiply(x, _floats(stored.scales)))
    return x if form.blocks == 1 else out(op.reshape(x, integers(stored.rows, form.columns), False))


def _product(x: Value, stored: Stored, name: str) -> Value:
    """`x @ stored.T` by a matrix of that name, with what the minima add."""
    y = _times(x, named(_matrix(stored), name))
    if stored.offsets is None:
        return y
    in_blocks = reshape(x, 0, 0, stored.form.blocks, stored.form.block)
    sums = out(op.reduce_sum(in_blocks, constant([-1], np.int64), False))
    return out(op.add(y, _times(sums, stored.offsets)))


def _with_offsets(rows: Value, ids: Value, stored: Stored) -> Value:
    """Rows (batch, tokens, columns) that are looked up, with their minima."""
    if stored.offsets is None:
        return rows
    form = stored.form
    in_blocks = reshape(rows, 0, 0, form.blocks, form.block)
    added = reshape(_gather(stored.offsets, ids), 0, 0, form.blocks, 1)
    return reshape(out(op.add(in_blocks, added)), 0, 0, form.columns)


def _floats(x: Value) -> Value:
    return x if x.get_element_type() == ov.Type.f32 else out(op.convert(x, "f32"))


def _gather(matrix: Value, ids: Value) -> Value:
    return out(op.gather(matrix, ids, constant(0, np.int64)))


def _times(x: Value, matrix: Value) -> Value:
    return out(op.matmul(x, matrix, False, True))
