"""Grids that the ONNX exporter stores, and that the stored bytes mean the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.exporters.onnx import OnnxExporter
from edgeq.exporters.onnx.grids import block_size
from edgeq.exporters.onnx.packing import codes, layout, pack_bits, scales, zero_points
from edgeq.scheme import F16, F32, GGML_GRIDS, Grid, affine_grid, codebook_grid, int_grid

STORED = [(b, g, s) for b in (4, 8) for g in (16, 32, 64, 128, 256, 48, -1) for s in (True, False)]
STORED += [(2, g, s) for g in (32, 64, 128, 256, -1) for s in (True, False)]


@pytest.mark.parametrize(("bits", "group", "symmetric"), STORED)
@pytest.mark.parametrize("columns", [256, 200])
def test_stored_bytes_dequantize_to_the_same_numbers(quantized, bits, group, symmetric, columns):
    weight = quantized(int_grid(bits, group, symmetric=symmetric), 5, columns)
    assert OnnxExporter().refuses(weight.grid) is None
    form = layout(weight)
    per_byte = 8 // bits
    packed = np.concatenate(list(codes(weight)))
    assert packed.shape == (5, form.blocks, form.block // per_byte)
    unpacked = np.stack([packed >> (bits * i) & (2**bits - 1) for i in range(per_byte)], -1).reshape(5, -1, form.block)
    zeros = 2 ** (bits - 1) if symmetric else zero_points(weight)[..., None].astype(np.float32)
    values = (unpacked.astype(np.float32) - zeros) * scales(weight)[..., None]
    np.testing.assert_array_equal(values.reshape(5, -1)[:, :columns], weight.dequantize())


def test_many_rows_are_packed_in_parts(quantized):
    weight = quantized(int_grid(4, 32), 10_000, 32)
    parts = list(codes(weight))
    assert len(parts) > 1
    np.testing.assert_array_equal(np.concatenate(parts)[:, 0], pack_bits(weight.codes, 4))


@given(st.sampled_from([2, 4, 8]), st.integers(1, 40), st.integers(1, 4))
def test_pack_bits_puts_the_first_code_in_the_low_bits(bits, n, rows):
    values = np.random.default_rng(n).integers(0, 2**bits, (rows, n), dtype=np.uint8)
    packed = pack_bits(values, bits)
    assert packed.shape == (rows, -(-n * bits // 8))
    for i in range(n):
        byte, place = divmod(i * bits, 8)
        np.testing.assert_array_equal(packed[:, byte] >> place & (2**bits - 1), values[:, i])


@pytest.mark.parametrize(
    ("grid", "word"),
    [
        (Grid("int", 9, 32), "9 bits"),
        (Grid("gguf", 4, 256, ggml_type="Q9_Z"), "Q9_Z"),
        (Grid("codebook", 4, 32, "none", codebook="nf5"), "nf5"),
    ],
)
def test_refuses_what_edgeq_does_not_know(grid, word):
    reason = OnnxExporter().refuses(grid)
    assert reason is not None and word in reason


GRIDS = [F32, F16, int_grid(3, 32), int_grid(4, 40), affine_grid(4, 32), codebook_grid("nf4", 64), *GGML_GRIDS.values()]


@pytest.mark.parametrize("grid", GRIDS)
def test_takes_every_other_grid(grid):
    assert OnnxExporter().refuses(grid) is None


@pytest.mark.parametrize(
    ("bits", "group", "block"), [(4, 32, 32), (4, 512, 256), (4, 96, 32), (2, 256, 128), (8, -1, 128)]
)
def test_a_group_is_stored_in_the_largest_block_that_divides_it(bits, group, block):
    assert block_size(int_grid(bits, group)) == block
