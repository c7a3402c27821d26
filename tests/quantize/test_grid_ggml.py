"""ggml's block types: codes and scales of the searches, packed as blocks, decode to the same floats with gguf-py."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.errors import EdgeqError
from edgeq.quantize import grids
from edgeq.quantize.methods.rtn import minmax, rtn
from edgeq.quantize.solvers.rtn import rounded
from edgeq.scheme import F16, GGML_GRIDS, Grid, affine_grid, codebook_grid, int_grid

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
TYPES = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL")


def weights(rows: int, columns: int, seed: int = 0) -> Floats:
    rng = np.random.default_rng(seed)
    return (rng.standard_t(4, (rows, columns)) * 0.05 + rng.normal(0, 0.02, (rows, 1))).astype(np.float32)


def importances(columns: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).lognormal(0, 1.5, columns).astype(np.float32)


def error(w: Floats, found: Floats, h: Floats) -> float:
    return float((np.square(found.astype(np.float64) - w) * h).sum())


def packed(q: QuantizedTensor) -> Bytes:
    """(rows, bytes): the blocks of 32 weights as ggml-common.h lays them out."""
    rows, columns = q.shape
    codes = q.codes.reshape(rows, columns // 32, 32)
    parts = [_bytes(q.scales)]
    if q.grid.zero == "float":
        assert q.zero_points is not None
        parts.append(_bytes(q.zero_points))
    if q.grid.bits == 8:
        parts.append(codes - np.uint8(128))
    else:
        if q.grid.bits == 5:
            high = np.packbits(codes >> 4, axis=-1, bitorder="little")
            parts.append(high)
        parts.append((codes[..., :16] & 15) | (codes[..., 16:] & 15) << 4)
    return np.concatenate(parts, -1).reshape(rows, -1)


def _bytes(per_block: npt.NDArray[np.float16]) -> Bytes:
    return np.ascontiguousarray(per_block).view(np.uint8).reshape(*per_block.shape, 2)


@pytest.mark.parametrize("name", TYPES)
def test_gguf_reads_the_same_values_bit_for_bit(name: str) -> None:
    w, h, kind = weights(16, 128), importances(128), GGMLQuantizationType[name]
    for importance in (None, h):
        q = rounded(w, grids.find(w, importance, GGML_GRIDS[name]), GGML_GRIDS[name])
        blocks = packed(q)
        size, width = GGML_QUANT_SIZES[kind]
        assert blocks.shape == (16, 128 // size * width)
        assert np.array_equal(quants.dequantize(blocks, kind), q.dequantize())


@pytest.mark.parametrize("name", [t for t in TYPES if t != "IQ4_NL"])  # gguf-py can't quantize to that one
def test_better_than_the_plain_quantizer_of_gguf(name: str) -> None:
    w, h, kind = weights(64, 256), importances(256), GGMLQuantizationType[name]
    plain = quants.dequantize(quants.quantize(w, kind), kind)
    for importance, most in ((np.ones(256, np.float32), 0.95), (h, 0.8)):
        if name == "Q8_0":
            most = 1.0
        found = rounded(w, grids.find(w, importance, GGML_GRIDS[name]), GGML_GRIDS[name]).dequantize()
        assert error(w, found, importance) < most * error(w, plain, importance)


KINDS = (
    int_grid(4, 32),
    int_grid(4, 32, symmetric=True),
    affine_grid(4, 32),
    codebook_grid("nf4", 32),
    codebook_grid("nf4", 32, double=True),
    codebook_grid("ternary", 32),
    *(GGML_GRIDS[t] for t in TYPES),
    GGML_GRIDS["Q4_K"],
    GGML_GRIDS["Q6_K"],
    GGML_GRIDS["IQ4_XS"],
)


@pytest.mark.parametrize("grid", KINDS, ids=lambda g: g.ggml_type or g.codebook or f"{g.kind}-{g.zero}")
def test_one_search_for_every_kind_of_grid(grid: Grid) -> None:
    w, h = weights(8, 256), importances(256)
    fine = rounded(w, grids.find(w, h, grid), grid).dequantize()
    plain = rounded(w, grids.min_max(w, grid), grid).dequantize()
    assert error(w, fine, h) <= error(w, plain, h)
    assert np.array_equal(fine, rounded(w, grids.search_for(grid)(w, h, grid), grid).dequantize())
    assert np.array_equal(rounded(w, grids.find(w, None, grid), grid).dequantize(), rtn.quantize(w, grid).dequantize())
    assert np.array_equal(plain, minmax.quantize(w, grid).dequantize())
    assert grids.refuses(grid, w.shape) is None


@pytest.mark.parametrize("grid", KINDS, ids=lambda g: g.ggml_type or g.codebook or f"{g.kind}-{g.zero}")
def test_ragged_rows_only_where_the_format_has_them(grid: Grid) -> None:
    w = weights(4, 300)
    why = grids.refuses(grid, w.shape)
    if grid.kind == "gguf":
        assert why is not None and "multiple of" in why
        with pytest.raises(EdgeqError, match="multiple of"):
            grids.find(w, None, grid)
    else:
        assert why is None
        assert rounded(w, grids.find(w, None, grid), grid).scales.shape == (4, 10)


def test_float_grids_take_everything_and_have_nothing_to_search() -> None:
    assert grids.refuses(F16, (3, 5, 7)) is None
    with pytest.raises(EdgeqError, match="no scales"):
        grids.find(weights(2, 32), None, F16)
    assert "dimensions" in str(grids.refuses(affine_grid(4, 32), (2, 3, 32)))
