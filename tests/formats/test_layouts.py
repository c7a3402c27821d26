"""Layouts of GPTQ, AWQ and compressed-tensors: against slow unpackers written from their descriptions, against the
compressed-tensors package, against files of other tools, and there and back without a bit changing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.checkpoint.tensor import Parameters, QuantizedTensor, groups_of
from edgeq.errors import EdgeqError
from edgeq.formats import awq, compressed, gptq
from edgeq.formats.uniform import as_uniform, stored_scales, uniform
from edgeq.formats.words import from_words, to_words
from edgeq.scheme import GGML_GRIDS, Grid, affine_grid, codebook_grid, int_grid

RECORDED = Path(__file__).with_name("recorded.npz")


def drawn(grid: Grid, rows: int, columns: int, seed: int = 0) -> QuantizedTensor:
    rng = np.random.default_rng(seed)
    shape = (rows, groups_of(columns, grid.group_size))
    zeros = None if grid.symmetric else rng.integers(0, grid.levels, shape, dtype=np.uint8)
    if zeros is not None:
        zeros[0, 0] = 0  # the one that the first GPTQ format can't say by itself
    scales = rng.uniform(1e-3, 1, shape).astype(np.float32 if grid.scale_dtype == "f32" else np.float16)
    return QuantizedTensor(grid, rng.integers(0, grid.levels, (rows, columns), dtype=np.uint8), scales, zeros)


def assert_same(a: QuantizedTensor, b: QuantizedTensor) -> None:
    assert a.grid == b.grid
    for x, y in zip((a.codes, *a.parameters.arrays()), (b.codes, *b.parameters.arrays()), strict=True):
        assert (x is None) == (y is None)
        assert x is None or (x.dtype == y.dtype and x.tobytes() == y.tobytes())


def bit_stream(words: np.ndarray, bits: int, count: int) -> list[int]:
    """Numbers of `bits` bits from one long number of 32-bit words, lowest first."""
    whole = sum((int(w) & 0xFFFFFFFF) << 32 * i for i, w in enumerate(words))
    return [(whole >> bits * i) & ((1 << bits) - 1) for i in range(count)]


grids = st.builds(
    lambda bits, group, symmetric: int_grid(bits, group, symmetric=symmetric),
    st.integers(2, 8),
    st.sampled_from([-1, 8, 16, 32, 64]),
    st.booleans(),
)


@settings(max_examples=40, deadline=None)
@given(grids, st.integers(1, 5), st.integers(1, 4), st.integers(0, 99))
def test_compressed_tensors_is_kept_bit_for_bit(grid, rows, blocks, seed):
    q = drawn(grid, rows * 3, blocks * 64, seed)
    back = compressed.from_packed(_filled(compressed.to_packed(q)), q.shape[1], grid.group_size, grid.bits, "w")
    assert_same(q, back)
    if grid.bits == 8:
        assert_same(q, compressed.from_plain(compressed.to_plain(q), grid.group_size, "w"))


def _filled(parts: dict) -> dict:
    return {k: np.array(v) for k, v in parts.items()}


@settings(max_examples=40, deadline=None)
@given(grids, st.integers(1, 3), st.integers(1, 4), st.integers(0, 99))
def test_gptq_is_kept_bit_for_bit(grid, rows, blocks, seed):
    q = drawn(grid, rows * 32, blocks * 32, seed)  # a last group may be ragged
    group = grid.group_size
    assert_same(q, gptq.from_gptq(gptq.to_gptq(q, v2=True), q.shape[1], group, "gptq_v2", "w"))
    if gptq.plain_zeros(grid):
        assert_same(q, gptq.from_gptq(gptq.to_gptq(q, v2=False), q.shape[1], group, "gptq", "w"))
    if grid.symmetric:
        assert_same(q, gptq.from_gptq(gptq.to_gptq(q, v2=False), q.shape[1], group, "fields", "w"))


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([-1, 8, 32, 64]), st.booleans(), st.integers(1, 4), st.integers(1, 4), st.integers(0, 99))
def test_awq_is_kept_bit_for_bit(group, symmetric, rows, blocks, seed):
    q = drawn(int_grid(4, group, symmetric=symmetric), rows * 8, blocks * 64, seed)
    assert_same(q, awq.from_awq(awq.to_awq(q), q.shape[1], group, "w"))


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8])
def test_gptq_s_parts_are_what_its_description_says(bits):
    q = drawn(int_grid(bits, 32), 32, 64)
    parts = gptq.to_gptq(q, v2=True)
    for row in (0, 7, 31):
        codes = np.array(bit_stream(parts["qweight"][:, row], bits, 64))
        zeros = [bit_stream(parts["qzeros"][g], bits, 32)[row] for g in range(2)]
        scales = parts["scales"][:, row].astype(np.float32)
        group = parts["g_idx"]
        weight = (codes - np.array(zeros)[group]).astype(np.float32) * scales[group]
        np.testing.assert_array_equal(weight, q.dequantize()[row])


def test_the_first_format_lowers_words_of_zero_points():
    """Stored zero points are one less, in every word at once: after a 0, the next field pays for the borrow."""
    zeros = np.array([[0, 3, 5, 1, 8, 15, 2, 4] * 4], np.uint8)
    words = to_words(zeros, 4)
    stored = (words.view(np.uint32) - np.uint32(0x11111111)).view(np.int32)
    scales = np.ones((1, 32), np.float16)
    parts = {"qweight": np.zeros((4, 32), np.int32), "qzeros": stored, "scales": scales}
    assert gptq.from_gptq(parts, 32, 32, "gptq", "w").zero_points.ravel().tolist() == zeros.ravel().tolist()


def test_awq_s_order_is_what_its_description_says():
    q = drawn(int_grid(4, 32), 16, 64)
    parts = awq.to_awq(q)
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    for k in (0, 33):
        for word in range(2):
            fields = bit_stream(parts["qweight"][k, word : word + 1], 4, 8)
            assert fields == [q.codes[word * 8 + n, k] for n in order]
    assert parts["qzeros"].shape == (2, 2) and parts["scales"].shape == (2, 16)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("group", [32, -1])
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_compressed_tensors_package_reads_the_same_values(bits, group, symmetric):
    """Asymmetric matrices too, which transformers 5.23 does not pass on to the package's own decompression."""
    torch = pytest.importorskip("torch")
    package = pytest.importorskip("compressed_tensors.compressors")
    from compressed_tensors.quantization import QuantizationScheme

    q = drawn(int_grid(bits, group, symmetric=symmetric), 12, 96)
    weights = {"num_bits": bits, "symmetric": symmetric, "strategy": "channel" if group == -1 else "group"}
    scheme = QuantizationScheme(targets=["Linear"], weights={**weights, "group_size": None if group == -1 else group})
    for layout, parts in (("pack-quantized", compressed.to_packed(q)), ("int-quantized", compressed.to_plain(q))):
        if layout == "int-quantized" and bits != 8:
            continue
        given_ = {k: torch.from_numpy(np.array(v)) for k, v in parts.items()}
        given_["weight_scale"] = given_["weight_scale"].float()
        found = package.BaseCompressor.get_value_from_registry(layout).decompress(given_, scheme)["weight"]
        np.testing.assert_array_equal(found.numpy(), q.dequantize())


def test_files_of_other_tools_mean_what_those_tools_say():
    """One small matrix each, written and dequantized by AutoRound 0.16.1 and llm-compressor 0.14 (float32)."""
    data = np.load(RECORDED)
    names = sorted({n.split("/")[0] for n in data.files})
    assert len(names) == 7
    for name in names:
        parts = {n.split("/")[1]: data[n] for n in data.files if n.startswith(f"{name}/")}
        values = parts.pop("values")
        columns, kind, bits = values.shape[1], name.split("-")[0], int(name.split("-")[1])
        if kind == "awq":
            found = awq.from_awq(parts, columns, 32, name)
        elif kind in ("gptq", "fields", "gptq_v2"):
            found = gptq.from_gptq(parts, columns, 32, kind, name)
        elif kind == "packed":
            found = compressed.from_packed(parts, columns, 32, bits, name)
        else:
            found = compressed.from_plain(parts, -1, name)
        assert found.grid.bits == bits and found.grid.symmetric == name.endswith("sym"), name
        np.testing.assert_array_equal(found.dequantize(), values, err_msg=name)


@pytest.mark.parametrize("name", GGML_GRIDS)
def test_blocks_without_minima_are_integers_in_other_words(name):
    grid = GGML_GRIDS[name]
    if grid.zero == "float" or grid.codebook:
        assert as_uniform(grid) is None
        return
    rng = np.random.default_rng(1)
    groups, supers = 512 // grid.group_size, None if grid.super_size is None else (3, 512 // grid.super_size)
    halves = rng.uniform(-1, 1, supers or (3, groups)).astype(np.float16)
    codes = rng.integers(0, grid.levels, (3, 512), dtype=np.uint8)
    if supers is None:
        q = QuantizedTensor.of(grid, codes, Parameters(halves))
    else:
        q = QuantizedTensor.of(grid, codes, Parameters(rng.integers(-8, 8, (3, groups), np.int8), None, halves))
    np.testing.assert_array_equal(uniform(q).dequantize(), q.dequantize())


def test_ternary_values_are_two_bit_integers():
    rng = np.random.default_rng(1)
    grid = codebook_grid("ternary", 32)
    q = QuantizedTensor.of(
        grid, rng.integers(0, 3, (4, 64), dtype=np.uint8), Parameters(rng.uniform(0.1, 1, (4, 2)).astype(np.float16))
    )
    assert uniform(q).grid == int_grid(2, 32, symmetric=True)
    np.testing.assert_array_equal(uniform(q).dequantize(), q.dequantize())


@pytest.mark.parametrize(
    ("grid", "by"),
    [
        (affine_grid(4, 32), ("compressed", "gptq", "awq")),
        (codebook_grid("nf4", 64), ("compressed", "gptq", "awq")),
        (int_grid(5, 32), ("gptq", "awq")),
        (int_grid(8, 32), ("awq",)),
        (GGML_GRIDS["Q6_K"], ("gptq", "awq")),  # its scales need single precision
        (GGML_GRIDS["Q4_0"], ()),
    ],
)
def test_which_layout_refuses_which_grid(grid, by):
    layouts = {"compressed": compressed, "gptq": gptq, "awq": awq}
    assert {name for name, layout in layouts.items() if layout.refuses(grid)} == set(by)


def test_scales_are_halves_only_where_that_is_exact():
    exact = np.array([[0.5, 3.0]], np.float32)
    assert stored_scales(exact)[1] == "f16"
    assert stored_scales(exact * np.float32(1 + 2**-12))[1] == "f32"
    assert stored_scales(np.array([[1e30]], np.float32))[1] == "f32"


def test_words_refuse_another_width():
    with pytest.raises(EdgeqError, match="33 codes of 4 bits are 5 words, not 4"):
        from_words(np.zeros((1, 4), np.int32), 4, 33)


def gptq_parts(**changed):
    return {**gptq.to_gptq(drawn(int_grid(4, 32), 32, 64), v2=True), **changed}


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"g_idx": np.arange(64, dtype=np.int32)[::-1] // 32}, "order of their activations"),
        ({"g_idx": np.zeros(3, np.int32)}, "g_idx has shape"),
        ({"qzeros": np.zeros((3, 4), np.int32)}, "zero points of shape"),
        ({"qzeros": np.zeros((2, 3), np.int32)}, "32 codes of 4 bits are 4 words, not 3"),
        ({"scales": np.zeros((2, 31), np.float16)}, "scales of shape"),
        ({"scales": np.full((2, 32), np.inf, np.float16)}, "a scale is not finite"),
        ({"qweight": np.zeros((9, 32), np.int32)}, "a qweight of shape"),
    ],
)
def test_parts_that_contradict_each_other_are_refused(changed, what):
    with pytest.raises(EdgeqError, match=what):
        gptq.from_gptq(gptq_parts(**changed), 64, 32, "gptq_v2", "w")


def test_three_bit_zero_points_that_writers_store_apart_are_refused():
    q = drawn(int_grid(3, 32), 32, 64)
    with pytest.raises(EdgeqError, match="don't store alike"):
        gptq.from_gptq(gptq.to_gptq(q, v2=True), 64, 32, "gptq", "w")
    stored = to_words(np.full((2, 32), 4, np.uint8), 3).view(np.uint32)
    lowered = (stored - np.array([0x24924924, 0x92492492, 0x49249249], np.uint32)).view(np.int32)
    parts = {**gptq.to_gptq(q, v2=True), "qzeros": lowered}  # symmetric, as GPTQModel writes it
    assert gptq.from_gptq(parts, 64, 32, "gptq", "w").grid.symmetric
