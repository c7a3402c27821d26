"""GPTQ's layout, as AutoGPTQ began it and GPTQModel, AutoRound, vLLM and transformers read it.

For a (N, K) matrix of b-bit codes in G groups: `qweight` int32 (K*b/32, N), codes packed along K; `qzeros` int32
(G, N*b/32), packed along N; `scales` float (G, N); `g_idx` int32 (K), the group of each input channel.

Zero points are stored in one of three ways. `gptq_v2`: as they are. `gptq`: a word of them less a one in every field,
as a 32-bit number, so that a zero point of 0 borrows from the field above (GPTQModel's rule; other readers know no
zero point of 0). `fields`: every field less one by itself (AutoRound).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgeq.checkpoint.tensor import QuantizedTensor, groups_of
from edgeq.errors import EdgeqError
from edgeq.formats.uniform import Array, as_uniform, assemble, group_of, uniform, zero_points
from edgeq.formats.words import WORD, from_words, to_words
from edgeq.scheme import Grid

PARTS = ("qweight", "qzeros", "scales", "g_idx")
BITS = (2, 3, 4, 8)  # what GPTQ's readers have kernels for
Zeros = Literal["gptq", "gptq_v2", "fields"]
# What GPTQModel takes for a one in every field of three words of 3-bit zero points; fields straddle words otherwise.
_GPTQMODEL_3_BITS = (0x24924924, 0x92492492, 0x49249249)


def refuses(grid: Grid) -> str | None:
    """Why the layout can't hold this grid losslessly, or None when it can."""
    same = as_uniform(grid)
    if same is None:
        return "GPTQ stores evenly spaced values with integer zero points"
    if same.bits not in BITS:
        return f"GPTQ's readers have no {same.bits}-bit codes, only {', '.join(map(str, BITS))}"
    if same.scale_dtype != "f16":
        return "GPTQ stores scales in half precision"
    return None


def refuses_shape(rows: int, columns: int, grid: Grid) -> str | None:
    """Why the layout can't hold a matrix of this shape, or None when it can."""
    if rows % WORD or columns % WORD:
        return f"GPTQ packs whole words of {WORD} rows and columns, this has {rows} and {columns}"
    return None


def plain_zeros(grid: Grid) -> bool:
    """The grid's zero points are stored without harm in the first format, which all readers know."""
    return grid.symmetric and grid.bits != 3


def to_gptq(q: QuantizedTensor, *, v2: bool) -> dict[str, Array]:
    """The parts of one matrix, whose grid and shape are not refused; `v2`: unless all matrices have plain zeros."""
    q = uniform(q)
    columns, bits = q.shape[1], q.grid.bits
    zeros = zero_points(q) if v2 else zero_points(q) - np.uint8(1)
    return {
        "qweight": np.ascontiguousarray(to_words(q.codes, bits).T),
        "qzeros": to_words(np.ascontiguousarray(zeros.T), bits),
        "scales": np.ascontiguousarray(q.scales.T),
        "g_idx": (np.arange(columns) // q.group_size).astype(np.int32),
    }


def from_gptq(
    parts: Mapping[str, Array], columns: int, stated: int | None, stored_as: Zeros, where: str
) -> QuantizedTensor:
    """The matrix that these parts hold; its number of bits is found from their shapes.

    Args:
        parts: of PARTS; `g_idx` may be missing.
        stated: the group size of the configuration.
        stored_as: how zero points are stored.

    Raises:
        EdgeqError: shapes that contradict each other, or input channels in another order (`desc_act`).
    """
    qweight, qzeros, scales = parts["qweight"], parts["qzeros"], parts["scales"]
    bits, rows = gptq_bits(qweight.shape, columns, where), qweight.shape[1]
    group = group_of(columns, scales.shape[0], stated, where)
    if scales.shape != (groups_of(columns, group), rows):
        raise EdgeqError(f"scales of shape {list(scales.shape)} beside {rows} rows", where=f"{where}.scales")
    if qzeros.ndim != 2 or qzeros.shape[0] != scales.shape[0]:
        raise EdgeqError(f"zero points of shape {list(qzeros.shape)}", where=f"{where}.qzeros")
    if "g_idx" in parts:
        _check_order(parts["g_idx"], columns, group, where)
    codes = from_words(np.ascontiguousarray(qweight.T), bits, columns)
    zeros = _zeros(qzeros, bits, rows, stored_as, where)
    return assemble(bits, group, codes, np.ascontiguousarray(scales.T), np.ascontiguousarray(zeros.T), where)


def gptq_bits(shape: tuple[int, ...], columns: int, where: str) -> int:
    """Bits of a code in a `qweight` of this shape.

    Raises:
        EdgeqError: no number of bits gives it.
    """
    bits, rest = divmod(shape[0] * WORD, columns) if len(shape) == 2 else (0, 1)
    if rest or not 2 <= bits <= 8:
        raise EdgeqError(
            f"a qweight of shape {list(shape)} for {columns} input channels",
            where=where,
            hint="The weights and the configuration are not of the same model",
        )
    return bits


def _check_order(g_idx: Array, columns: int, group: int, where: str) -> None:
    """The groups are consecutive input channels. Those of `desc_act` are not, and no runtime's grid says so."""
    if g_idx.shape != (columns,):
        raise EdgeqError(f"g_idx has shape {list(g_idx.shape)} for {columns} input channels", where=where)
    size = columns if group == -1 else group
    if not np.array_equal(g_idx, np.arange(columns) // size):
        raise EdgeqError(
            "its input channels are grouped in the order of their activations (desc_act)",
            where=where,
            hint="No edgeq grid keeps that without loss: take a model quantized with desc_act=false or static groups",
        )


def _zeros(qzeros: Array, bits: int, rows: int, stored_as: Zeros, where: str) -> npt.NDArray[np.uint8]:
    """uint8 (groups, rows)."""
    fields = from_words(qzeros, bits, rows)
    if stored_as == "gptq_v2":
        return fields
    raised = (fields + np.uint8(1)) & np.uint8((1 << bits) - 1)
    if stored_as == "fields":
        return raised
    if bits in (2, 4, 8):
        return from_words(_plus(qzeros, to_words(np.ones((1, WORD // bits), np.uint8), bits)[0]), bits, rows)
    # Writers disagree on what one less is where fields straddle words: only a symmetric matrix speaks for itself.
    for found in (raised, from_words(_plus(qzeros, np.array(_GPTQMODEL_3_BITS, np.uint32)), bits, rows)):
        if bool((found == 1 << (bits - 1)).all()):
            return found
    raise EdgeqError(
        f"{bits}-bit zero points in the first GPTQ format, which its writers don't store alike",
        where=where,
        hint="Take a model in the format gptq_v2, or one quantized with sym=true",
    )


def _plus(words: Array, ones: Array) -> Array:
    """Every word plus its entry of a repeated row of words, as 32-bit numbers."""
    row = np.resize(ones.view(np.uint32), words.shape[1])
    return np.asarray(np.ascontiguousarray(words, np.int32).view(np.uint32) + row).view(np.int32)
