"""Types of the file beside the block types that grids are named after: 16-bit floats and ternary blocks."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import edgeq
from edgeq.checkpoint.tensor import Parameters, QuantizedTensor
from edgeq.errors import EdgeqError
from edgeq.exporters.gguf import GgufExporter
from edgeq.exporters.gguf.read_back import read_back
from edgeq.exporters.gguf.storable import refuses
from edgeq.exporters.gguf.ternary import ternary_blocks
from edgeq.measure.verify import verify
from edgeq.model.gguf_file import GgufFile
from edgeq.model.weights import open_source
from edgeq.quantize.engine import quantize
from edgeq.recipe import Recipe
from edgeq.scheme import codebook_grid


@pytest.fixture
def narrow(saved, tmp_path):
    """`narrow(dtype)`: the tiny model stored in 16 bits."""

    def make(dtype: str):
        import torch
        from safetensors.torch import load_file, save_file

        folder = tmp_path / dtype
        shutil.copytree(saved("qwen2"), folder)
        tensors = load_file(folder / "model.safetensors")
        save_file({k: v.to(getattr(torch, dtype)) for k, v in tensors.items()}, folder / "model.safetensors")
        return folder

    return make


@pytest.mark.parametrize(("dtype", "kind"), [("bfloat16", "BF16"), ("float16", "F16")])
def test_a_source_in_16_bits_keeps_them(narrow, tmp_path, dtype, kind):
    source = open_source(narrow(dtype))
    made = GgufExporter().export(source, tmp_path / "out")
    wide = GgufExporter().export(source, tmp_path / "wide", dtype="f32")
    for artifact, expected in ((made, kind), (wide, "F32")):
        types = {t.type for t in GgufFile.open(artifact.path / "model.gguf").tensors.values() if len(t.shape) > 1}
        assert types == {expected}
        assert read_back(artifact.path / "model.gguf", source) == []
        assert artifact.options["activation_bits"] == 32
    assert made.files["model.gguf"]["bytes"] < 0.7 * wide.files["model.gguf"]["bytes"]
    pytest.importorskip("xllamacpp")
    found = verify(made, checkpoint=source)
    assert found.verdict == "pass" and found.path == "float", found.reasons


def test_values_that_do_not_fit_are_told_and_nothing_is_written(narrow, tmp_path):
    """A file of mixed dtypes: most of it in 16 bits, one matrix not."""
    from safetensors.torch import load_file, save_file

    folder = narrow("bfloat16")
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    save_file({**tensors, name: tensors[name].float() + 1e-6}, folder / "model.safetensors")
    with pytest.raises(EdgeqError, match="BF16 does not hold all of this tensor's values") as caught:
        GgufExporter().export(open_source(folder), tmp_path / "out")
    assert caught.value.hint == "Add --dtype f32" and not (tmp_path / "out").exists()
    with pytest.raises(EdgeqError, match="can't be exported as q8"):
        GgufExporter().export(open_source(folder), tmp_path / "out", dtype="q8")


@pytest.mark.parametrize("kind", ["TQ2_0", "TQ1_0"])
@pytest.mark.parametrize("group", [-1, 256, 512])
def test_ternary_blocks_are_those_of_gguf_py(kind, group):
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize

    rng = np.random.default_rng(0)
    columns = 1024
    groups = 1 if group == -1 else columns // group
    scales = rng.uniform(0.01, 2, (5, groups)).astype(np.float16)
    codes = rng.integers(0, 3, (5, columns)).astype(np.uint8)
    tensor = QuantizedTensor.of(codebook_grid("ternary", group), codes, Parameters(scales))
    found = dequantize(ternary_blocks(tensor, kind), GGMLQuantizationType[kind])
    np.testing.assert_array_equal(found, tensor.dequantize())


@pytest.mark.parametrize(
    ("grid", "why"),
    [
        (codebook_grid("ternary", 64), "hold 256 weights, groups of 64"),
        (codebook_grid("ternary", 256, double=True), "one scale in half precision"),
        (codebook_grid("nf4", 64), "no block type for the codebook nf4"),
    ],
)
def test_grids_that_ternary_blocks_do_not_hold(grid, why):
    assert why in str(refuses(grid))
    assert refuses(codebook_grid("ternary", 256)) is None and refuses(codebook_grid("ternary", -1)) is None


@pytest.mark.parametrize("ternary_type", ["tq2_0", "tq1_0"])
def test_a_ternary_checkpoint_runs(saved, tmp_path, ternary_type):
    pytest.importorskip("xllamacpp")
    folder = saved("llama", hidden_size=256, intermediate_size=512, head_dim=64)
    recipe = Recipe(str(folder), method="rtn", grid="ternary", group_size=256, embed_grid="q8_0", head="embed")
    checkpoint = quantize(open_source(folder), recipe, tmp_path / "q")
    artifact = GgufExporter().export(checkpoint, tmp_path / "out", ternary_type=ternary_type)
    file = GgufFile.open(artifact.path / "model.gguf")
    assert file.tensors["blk.0.ffn_up.weight"].type == ternary_type.upper()
    assert read_back(artifact.path / "model.gguf", checkpoint) == []
    assert verify(artifact, checkpoint=checkpoint).verdict == "pass"
    with edgeq.load(artifact.path, threads=1) as session:
        assert session.generate("The quick", max_tokens=4)
    with pytest.raises(EdgeqError, match="no ternary type tq3"):
        GgufExporter().export(checkpoint, tmp_path / "other", ternary_type="tq3")


def test_rows_that_ternary_blocks_do_not_fill_are_refused(saved, tmp_path):
    recipe = Recipe(str(saved("llama")), method="rtn", grid="ternary", group_size=-1, embed_grid="q8_0")
    checkpoint = quantize(open_source(saved("llama")), recipe, tmp_path / "q")
    with pytest.raises(EdgeqError, match="TQ2_0 needs rows of whole blocks of 256, this has 64"):
        GgufExporter().export(checkpoint, tmp_path / "out")


def test_the_modelfile_names_the_file_and_what_ends_an_answer(saved, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(saved("qwen2"), folder)
    lines = (GgufExporter().export(open_source(folder), tmp_path / "a").path / "Modelfile").read_text().splitlines()
    assert lines == ["FROM ./model.gguf", 'PARAMETER stop "</s>"']
    (folder / "tokenizer_config.json").write_text('{"bos_token": "<s>", "eos_token": "</s>"}')  # no chat template
    lines = (GgufExporter().export(open_source(folder), tmp_path / "b").path / "Modelfile").read_text().splitlines()
    assert lines[1] == 'TEMPLATE "{{ .Prompt }}"'
