"""Block bytes against the `gguf` package's own reader and writer, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants

from edgeq.checkpoint.tensor import Parameters, QuantizedTensor
from edgeq.errors import EdgeqError
from edgeq.estimate.ggml import BLOCKS
from edgeq.formats.ggml_blocks import from_blocks, pack, to_blocks, unpack
from edgeq.scheme import GGML_GRIDS, Grid, int_grid

COLUMNS = 512
ROWS = 5
WRITTEN = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")  # gguf-py can quantize to these


def levels(grid: Grid) -> int:
    return 16 if grid.codebook else grid.levels


def halves(rng: np.random.Generator, shape: tuple[int, ...], *, signed: bool) -> np.ndarray:
    """f16 numbers of every magnitude: subnormal, largest, zero, negative where asked."""
    value = rng.choice([0.0, 6e-8, 1e-5, 0.037, 1.0, 65504.0], shape) * rng.uniform(0.5, 1, shape)
    sign = rng.choice([-1, 1], shape) if signed else 1
    return (value * sign).astype(np.float16)


def drawn(grid: Grid, rng: np.random.Generator, pick: str) -> QuantizedTensor:
    """A tensor whose every part is drawn from its whole range, or stands at one end of it."""
    groups = (ROWS, COLUMNS // grid.group_size)
    supers = (ROWS, COLUMNS // (grid.super_size or COLUMNS))

    def whole(low: int, high: int, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        ends = {"low": (low, low), "high": (high, high)}
        a, b = ends.get(pick, (low, high))
        return rng.integers(a, b + 1, shape).astype(dtype)

    codes = whole(0, levels(grid) - 1, (ROWS, COLUMNS), np.uint8)
    if grid.super_size is None:
        minima = halves(rng, groups, signed=True) if grid.zero == "float" else None
        return QuantizedTensor.of(grid, codes, Parameters(halves(rng, groups, signed=True), minima))
    if grid.symmetric:
        half = 1 << (grid.scale_bits - 1)
        scales = whole(-half, half - 1, groups, np.int8)
        return QuantizedTensor.of(grid, codes, Parameters(scales, None, halves(rng, supers, signed=True)))
    top = (1 << grid.scale_bits) - 1
    scales, minima = whole(0, top, groups, np.uint8), whole(0, top, groups, np.uint8)
    ends = halves(rng, supers, signed=True), halves(rng, supers, signed=True)
    return QuantizedTensor.of(grid, codes, Parameters(scales, minima, *ends))


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("pick", ["any", "low", "high"])
@pytest.mark.parametrize("name", GGML_GRIDS)
def test_gguf_reads_the_very_values(name: str, pick: str) -> None:
    q = drawn(GGML_GRIDS[name], np.random.default_rng(len(name)), pick)
    data = to_blocks(q)
    assert data.shape == (ROWS, COLUMNS // BLOCKS[name][0] * BLOCKS[name][1])
    assert same_bits(quants.dequantize(data, GGMLQuantizationType[name]), q.dequantize())


@pytest.mark.parametrize("pick", ["any", "low", "high"])
@pytest.mark.parametrize("name", GGML_GRIDS)
def test_reading_gives_back_every_part(name: str, pick: str) -> None:
    q = drawn(GGML_GRIDS[name], np.random.default_rng(1), pick)
    back = from_blocks(to_blocks(q), name, COLUMNS)
    assert back.grid == q.grid and same_bits(back.codes, q.codes)
    for ours, theirs in zip(back.parameters.arrays(), q.parameters.arrays(), strict=True):
        assert (ours is None) == (theirs is None)
        assert ours is None or theirs is None or same_bits(ours, theirs)


@pytest.mark.parametrize("name", GGML_GRIDS)
def test_any_bytes_survive_the_round_trip(name: str) -> None:
    """Whatever another program wrote is kept, scale bits that no sane program writes included."""
    size, n_bytes = BLOCKS[name]
    data = np.random.default_rng(2).integers(0, 256, (ROWS, COLUMNS // size * n_bytes)).astype(np.uint8)
    assert same_bits(to_blocks(from_blocks(data, name, COLUMNS)), data)


@pytest.mark.parametrize("name", WRITTEN)
def test_blocks_of_another_quantizer_come_back_as_they_were(name: str) -> None:
    weight = np.random.default_rng(3).standard_normal((ROWS, COLUMNS)).astype(np.float32)
    kind = GGMLQuantizationType[name]
    data = quants.quantize(weight, kind)
    q = from_blocks(data, name, COLUMNS)
    assert same_bits(to_blocks(q), data)
    assert same_bits(q.dequantize(), quants.dequantize(data, kind))


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("span", [1, 4, 16])
def test_unpack_undoes_pack(bits: int, span: int) -> None:
    codes = np.random.default_rng(bits).integers(0, 1 << bits, (3, 128)).astype(np.uint8)
    packed = pack(codes, bits, span)
    assert packed.shape == (3, 128 * bits // 8)
    assert same_bits(unpack(packed, bits, span), codes)


def test_what_is_no_block_type_is_refused() -> None:
    grid = int_grid(4, 32)
    plain = QuantizedTensor(grid, np.zeros((1, 32), np.uint8), np.ones((1, 1), np.float16), np.zeros((1, 1), np.uint8))
    with pytest.raises(EdgeqError, match="no block type"):
        to_blocks(plain)
    with pytest.raises(EdgeqError, match="can't be read"):
        from_blocks(np.zeros((1, 18), np.uint8), "MXFP4", 32)
    with pytest.raises(EdgeqError, match="no whole blocks of 256"):
        from_blocks(np.zeros((1, 144), np.uint8), "Q4_K", 288)
    with pytest.raises(EdgeqError, match="144 bytes a row, not 143"):
        from_blocks(np.zeros((1, 143), np.uint8), "Q4_K", 256)
