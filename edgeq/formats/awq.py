"""AWQ's layout of 4-bit codes, as AutoAWQ's GEMM kernels, vLLM and transformers read it.

For a (N, K) matrix in G groups: `qweight` int32 (K, N/8) and `qzeros` int32 (G, N/8), packed along N with the
columns of every eight in the order 0 2 4 6 1 3 5 7; `scales` f16 (G, N). A weight is `(code - zero) * scale`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgeq.checkpoint.tensor import QuantizedTensor, groups_of
from edgeq.errors import EdgeqError
from edgeq.formats.uniform import Array, as_uniform, assemble, group_of, uniform, zero_points
from edgeq.formats.words import from_words, to_words
from edgeq.scheme import Grid

PARTS = ("qweight", "qzeros", "scales")
BITS, FIELDS = 4, 8
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # the column that lies in each field of a word
_BACK = tuple(int(i) for i in np.argsort(ORDER))


def refuses(grid: Grid) -> str | None:
    """Why the layout can't hold this grid losslessly, or None when it can."""
    same = as_uniform(grid)
    if same is None:
        return "AWQ stores evenly spaced values with integer zero points"
    if same.bits != BITS:
        return f"AWQ stores {BITS}-bit codes only, not {same.bits}-bit ones"
    if same.scale_dtype != "f16":
        return "AWQ stores scales in half precision"
    return None


def refuses_shape(rows: int, columns: int, grid: Grid) -> str | None:
    """Why the layout can't hold a matrix of this shape, or None when it can."""
    if rows % FIELDS:
        return f"AWQ packs {FIELDS} rows to a word, this has {rows}"
    if grid.group_size != -1 and columns % grid.group_size:
        return f"AWQ needs rows of whole groups of {grid.group_size}, this has {columns}"
    return None


def to_awq(q: QuantizedTensor) -> dict[str, Array]:
    """The parts of one matrix, whose grid and shape are not refused."""
    q = uniform(q)
    codes, zeros = (to_words(_arranged(a.T, ORDER), BITS) for a in (q.codes, zero_points(q)))
    return {"qweight": codes, "qzeros": zeros, "scales": np.ascontiguousarray(q.scales.T)}


def from_awq(parts: Mapping[str, Array], columns: int, stated: int | None, where: str) -> QuantizedTensor:
    """The matrix that these parts hold.

    Args:
        parts: of PARTS.
        stated: the group size of the configuration.

    Raises:
        EdgeqError: shapes that contradict each other, or are not those of 4-bit codes.
    """
    qweight, qzeros, scales = parts["qweight"], parts["qzeros"], parts["scales"]
    rows = awq_rows(qweight.shape, columns, where)
    group = group_of(columns, scales.shape[0], stated, where)
    groups = groups_of(columns, group)
    if scales.shape != (groups, rows) or qzeros.shape != (groups, rows // FIELDS):
        shapes = f"scales of shape {list(scales.shape)} and zero points of {list(qzeros.shape)}"
        raise EdgeqError(f"{shapes} beside {rows} rows of 4-bit codes", where=where)
    codes, zeros = (_arranged(from_words(w, BITS, rows), _BACK).T for w in (qweight, qzeros))
    return assemble(
        BITS, group, np.ascontiguousarray(codes), np.ascontiguousarray(scales.T), np.ascontiguousarray(zeros), where
    )


def awq_rows(shape: tuple[int, ...], columns: int, where: str) -> int:
    """Output channels of a `qweight` of this shape.

    Raises:
        EdgeqError: it has other input channels.
    """
    if len(shape) != 2 or shape[0] != columns:
        raise EdgeqError(
            f"a qweight of shape {list(shape)} for {columns} input channels",
            where=where,
            hint="The weights and the configuration are not of the same model",
        )
    return shape[1] * FIELDS


def _arranged(codes: Array, order: tuple[int, ...]) -> Array:
    """The columns of every eight in another order."""
    blocks = codes.reshape(len(codes), -1, FIELDS)
    return np.ascontiguousarray(blocks[:, :, list(order)].reshape(len(codes), -1))
