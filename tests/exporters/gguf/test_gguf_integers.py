"""Integer grids, with and without zero points, on llama.cpp's block types."""

from __future__ import annotations

import numpy as np
import pytest
from gguf import GGUFReader
from gguf.constants import GGMLQuantizationType
from gguf.quants import dequantize
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.checkpoint.codebooks import CODEBOOKS
from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.conversion import convert
from edgeq.errors import EdgeqError
from edgeq.exporters.gguf import GgufExporter
from edgeq.exporters.gguf.read_back import read_back
from edgeq.exporters.gguf.storable import as_blocks, ggml_type, refuses, rounds
from edgeq.formats.ggml_blocks import to_blocks
from edgeq.measure.verify import verify
from edgeq.model.weights import open_source
from edgeq.quantize.engine import quantize
from edgeq.recipe import Recipe
from edgeq.registry import exporter
from edgeq.scheme import Grid, codebook_grid


def tensor(grid: Grid, columns: int = 256, seed: int = 0, low: float = 1e-4) -> QuantizedTensor:
    rng = np.random.default_rng(seed)
    groups = 1 if grid.group_size == -1 else columns // grid.group_size
    scales = rng.uniform(low, 0.1, (5, groups)).astype(np.float16 if grid.scale_dtype == "f16" else np.float32)
    zeros = rng.integers(0, grid.levels, (5, groups)).astype(np.uint8) if grid.zero == "int" else None
    if grid.zero == "float":
        zeros = rng.normal(0, 0.1, (5, groups)).astype(scales.dtype)
    values = grid.levels if grid.codebook is None else len(CODEBOOKS[grid.codebook])
    codes = rng.integers(0, values, (5, columns)).astype(np.uint8)
    return QuantizedTensor(grid, codes, scales, zeros)


def decoded(weight: QuantizedTensor) -> np.ndarray:
    """What gguf-py makes of the blocks."""
    kind = GGMLQuantizationType[ggml_type(weight.grid)]
    return dequantize(to_blocks(as_blocks(weight, "x")), kind)


EXACT = [
    (Grid("int", bits, group, "none", "f16"), kind)
    for bits, kind in ((2, "Q4_0"), (3, "Q4_0"), (4, "Q4_0"), (5, "Q5_0"), (6, "Q8_0"), (7, "Q8_0"), (8, "Q8_0"))
    for group in (32, 128, -1)
]
EXACT += [(Grid("int", 3, 64, "float", "f16"), "Q4_1"), (codebook_grid("fp4", 32), "Q5_0")]


@pytest.mark.parametrize(("grid", "kind"), EXACT)
def test_integers_without_zero_points_keep_every_number(grid, kind):
    weight = tensor(grid)
    assert refuses(grid) is None and ggml_type(grid) == kind and not rounds(grid)
    np.testing.assert_array_equal(decoded(weight), weight.dequantize())


@settings(max_examples=60, deadline=None)
@given(
    bits=st.integers(2, 5),
    group=st.sampled_from([32, 64, 128, -1]),
    dtype=st.sampled_from(["f16", "f32"]),
    seed=st.integers(0, 1000),
)
def test_zero_points_become_the_nearest_minima(bits, group, dtype, seed):
    """Less than half of a unit in the last place of scale and of minimum, which are below 32 steps."""
    weight = tensor(Grid("int", bits, group, "int", dtype), seed=seed)
    scales = weight.scales.astype(np.float64).repeat(weight.group_size, 1)
    most = 0.5 * 2.0**-10 * weight.grid.levels * (1 if dtype == "f16" else 2)
    off = np.abs(decoded(weight) - weight.dequantize().astype(np.float64)) / scales
    assert ggml_type(weight.grid) == ("Q5_1" if bits == 5 else "Q4_1")
    assert off.max() <= most


def test_a_zero_point_that_is_a_power_of_two_loses_nothing():
    weight = tensor(Grid("int", 4, 32, "int", "f16"), low=0.01)
    for zero in (0, 1, 2, 4, 8):
        weight.zero_points[:] = zero
        np.testing.assert_array_equal(decoded(weight), weight.dequantize())


def test_a_scale_beyond_half_precision_is_told():
    weight = tensor(Grid("int", 4, 32, "int", "f32"))
    weight.scales[0, 0] = 1e5
    with pytest.raises(EdgeqError, match="too large for llama") as caught:
        as_blocks(weight, "layers.0.q")
    assert caught.value.where == "layers.0.q"


@pytest.mark.parametrize(
    "fields",
    [
        {"bits": 4},
        {"bits": 4, "group_size": -1},
        {"bits": 3},
        {"bits": 2, "group_size": 64},
        {"bits": 3, "symmetric": True},
        {"grid": "fp4"},
        {"bits": 5, "embed_grid": "int", "embed_bits": 5},
    ],
)
def test_a_checkpoint_runs_and_is_read_back(saved, tmp_path, fields):
    folder = saved("llama")
    recipe = Recipe(str(folder), **{"method": "rtn", "group_size": 32, "embed_grid": "q8_0", **fields})
    checkpoint = quantize(open_source(folder), recipe, tmp_path / "q")
    artifact = GgufExporter().export(checkpoint, tmp_path / "out")
    file = artifact.path / "model.gguf"
    assert read_back(file, checkpoint) == []
    pytest.importorskip("xllamacpp")
    found = verify(artifact, checkpoint=checkpoint)
    assert found.verdict == "pass", found.reasons


@pytest.mark.parametrize("layout", ["awq", "gptq", "compressed-tensors"])
def test_another_tool_s_folder_becomes_a_file(saved, tmp_path, layout):
    """Four bits in groups with zero points, the usual form of a download."""
    folder = saved("llama")
    recipe = Recipe(str(folder), method="rtn", group_size=32, embed_bits=16)
    made = quantize(open_source(folder), recipe, tmp_path / "q")
    other = exporter(layout).export(made, tmp_path / layout)
    checkpoint = convert(other.path, tmp_path / "converted")
    file = GgufExporter().export(checkpoint, tmp_path / "out").path / "model.gguf"
    assert read_back(file, checkpoint) == []
    read = open_source(file).load("layers.1.down")
    np.testing.assert_allclose(read, made.load("layers.1.down").dequantize(), atol=1e-3, rtol=0)


def test_a_changed_minimum_is_found(saved, tmp_path):
    folder = saved("llama")
    recipe = Recipe(str(folder), method="rtn", group_size=32, embed_grid="q8_0")
    checkpoint = quantize(open_source(folder), recipe, tmp_path / "q")
    file = GgufExporter().export(checkpoint, tmp_path / "out").path / "model.gguf"
    where = next(t for t in GGUFReader(file).tensors if t.name == "blk.1.ffn_up.weight")
    data = bytearray(file.read_bytes())
    data[where.data_offset + 2] ^= 1  # the last bit of the first minimum
    file.write_bytes(data)
    assert read_back(file, checkpoint) == ["layers.1.up was read back with other values"]


def test_inputs_in_8_bits_are_refused(make, tmp_path):
    """`make` is of tests/exporters/conftest.py."""
    with pytest.raises(EdgeqError, match="rounds the inputs of products in its own way"):
        GgufExporter().export(make("dynamic"), tmp_path / "out")
    assert not list(tmp_path.iterdir())
