"""`edgeq convert`: GGUF files and quantized folders become checkpoints; what can't is refused, and nothing is left."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_llama import write_llama

from edgeq.checkpoint.store import Checkpoint
from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.checkpoint.weights import dense
from edgeq.cli.main import main
from edgeq.conversion import convert
from edgeq.errors import EdgeqError
from edgeq.model.weights import open_source
from edgeq.quantize.engine import quantize
from edgeq.recipe import Recipe
from edgeq.registry import exporter
from edgeq.scheme import GGML_GRIDS


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """`source(**fields)`: a tiny float model with a tokenizer."""

    def make(**fields) -> Path:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers

        folder = write_llama(tmp_path_factory.mktemp("model"), spread=1.0, **{"vocab_size": 64, **fields})
        letters = [*map(chr, range(33, 92)), "AB"]
        vocab = {w: i for i, w in enumerate(["<unk>", "<s>", "</s>", "Ġ", *letters])}
        tokenizer = Tokenizer(models.BPE(vocab, [("A", "B")]))  # llama.cpp wants merges
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.save(str(folder / "tokenizer.json"))
        named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
        (folder / "tokenizer_config.json").write_text(json.dumps(named))
        return folder

    return make


def same(a, b) -> bool:
    if not isinstance(a, QuantizedTensor):
        return not isinstance(b, QuantizedTensor) and a.tobytes() == b.tobytes()
    parts = zip((a.codes, *a.parameters.arrays()), (b.codes, *b.parameters.arrays()), strict=True)
    return a.grid == b.grid and all(x is y or (x.dtype == y.dtype and x.tobytes() == y.tobytes()) for x, y in parts)


@pytest.fixture(scope="module")
def wide(source) -> Path:
    """A model whose rows are whole super-blocks, with a head of its own."""
    return source(hidden_size=256, intermediate_size=256, num_hidden_layers=1, tie_word_embeddings=False)


@pytest.mark.parametrize("name", GGML_GRIDS)
def test_a_gguf_file_gives_its_checkpoint_back(wide, tmp_path, name):
    made = quantize(open_source(wide), Recipe(str(wide), grid=name.lower(), embed_grid=name.lower()), tmp_path / "q")
    artifact = exporter("gguf").export(made, tmp_path / "out")
    again = convert(artifact.path / "model.gguf", tmp_path / "again")
    again.verify()
    assert all(same(made.load(n), again.load(n)) for n in made.names())
    assert again.scheme.name == f"gguf-{name.lower()}" and again.scheme.linear == GGML_GRIDS[name]
    assert again.tokenizer_files().keys() >= {"tokenizer.json", "tokenizer_config.json"}


def test_a_float_gguf_is_kept_in_half_precision_where_that_is_exact(source, tmp_path):
    folder = source()
    made = quantize(open_source(folder), Recipe(str(folder), "none", bits=16, embed_bits=16), tmp_path / "q")
    artifact = exporter("gguf").export(made, tmp_path / "out")
    again = convert(artifact.path, tmp_path / "again")  # a folder with one GGUF file
    assert all(same(made.load(n), again.load(n)) for n in made.names())
    assert {s.grid.bits for s in again.manifest.tensors.values() if len(s.shape) > 1} == {16}
    exact = exporter("gguf").export(open_source(folder), tmp_path / "f32")
    single = convert(exact.path, tmp_path / "single")
    assert {s.grid.bits for s in single.manifest.tensors.values()} == {32}


def test_a_converted_file_is_exported_to_another_layout(source, tmp_path):
    folder = source(tie_word_embeddings=False)
    made = quantize(open_source(folder), Recipe(str(folder), grid="q4_0", embed_grid="q8_0"), tmp_path / "q")
    gguf = exporter("gguf").export(made, tmp_path / "gguf")
    converted = convert(gguf.path / "model.gguf", tmp_path / "c")
    for name in ("compressed-tensors", "gptq"):
        artifact = exporter(name).export(converted, tmp_path / name)
        again = convert(artifact.path, tmp_path / f"{name}-again")
        for tensor in made.names():
            np.testing.assert_array_equal(dense(again.load(tensor)), dense(made.load(tensor)), err_msg=tensor)


def test_a_type_without_a_grid_is_refused_by_its_tensor(source, tmp_path):
    import gguf

    folder = source(hidden_size=256, intermediate_size=256)
    made = quantize(open_source(folder), Recipe(str(folder), grid="q4_k", embed_grid="q8_0"), tmp_path / "q")
    file = exporter("gguf").export(made, tmp_path / "out").path / "model.gguf"
    info = next(t for t in gguf.GGUFReader(file).tensors if t.name == "blk.1.ffn_up.weight")
    data = file.read_bytes()
    at = data.index(b"blk.1.ffn_up.weight") + len("blk.1.ffn_up.weight") + 4 + 16
    assert data[at] == int(info.tensor_type) == 12
    file.write_bytes(data[:at] + bytes([16]) + data[at + 1 :])  # IQ2_XXS, in fewer bytes than are there
    with pytest.raises(
        EdgeqError, match=r"tensor blk\.1\.ffn_up\.weight has type IQ2_XXS, which edgeq has no grid for"
    ):
        convert(file, tmp_path / "again")
    assert not (tmp_path / "again").exists()


@pytest.fixture(scope="module")
def quantized(source, tmp_path_factory) -> Path:
    """A GPTQ folder."""
    folder = source()
    out = tmp_path_factory.mktemp("gptq")
    made = quantize(open_source(folder), Recipe(str(folder)), out / "q")
    return exporter("gptq").export(made, out / "gptq").path


@pytest.fixture
def broken(quantized, tmp_path):
    """A copy of it whose configuration, or whose tensors, something is done to."""

    def make(config=None, tensors_=None) -> Path:
        from safetensors.numpy import load_file, save_file

        folder = tmp_path / "model"
        shutil.copytree(quantized, folder)
        if config is not None:
            path = folder / "config.json"
            whole = json.loads(path.read_text())
            whole["quantization_config"] = config(whole["quantization_config"])
            path.write_text(json.dumps(whole))
        if tensors_ is not None:
            arrays = load_file(folder / "model.safetensors")
            tensors_(arrays)
            save_file(arrays, folder / "model.safetensors")
        return folder

    return make


def compressed_group(**group):
    return {"quant_method": "compressed-tensors", "config_groups": {"a": {"targets": ["Linear"], **group}}}


Q = "model.layers.1.self_attn.q_proj"


@pytest.mark.parametrize(
    ("config", "what"),
    [
        (lambda c: {"quant_method": "fp8"}, "the quantization method 'fp8' can't be converted"),
        (lambda c: {"quant_method": "bitsandbytes"}, "'bitsandbytes' can't be converted"),
        (lambda c: {}, "without a quant_method"),
        (lambda c: {**c, "group_size": "32"}, "group_size is '32'"),
        (lambda c: {**c, "checkpoint_format": "marlin"}, "the GPTQ layout 'marlin'"),
        (lambda c: {"quant_method": "awq", "bits": 8}, "AWQ of 8 bits"),
        (lambda c: {"quant_method": "auto-round", "packing_format": "auto_round:fp8"}, "packing 'auto_round:fp8'"),
        (lambda c: {"quant_method": "auto-round", "data_type": "mx_fp"}, "AutoRound's mx_fp weights"),
        (lambda c: {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"}, "layout 'nvfp4"),
        (lambda c: {"quant_method": "compressed-tensors", "config_groups": {}}, "names no groups"),
        (lambda c: {"quant_method": "compressed-tensors", "config_groups": {"a": 3}}, "a group .* is damaged"),
        (lambda c: compressed_group(weights=4), "a group .* is damaged"),
        (lambda c: compressed_group(weights={"num_bits": "4"}), "a group .* is damaged"),
        (lambda c: compressed_group(output_activations={}), "quantized outputs"),
        (lambda c: {"quant_method": "auto-round", "act_bits": "x"}, "with x-bit activations"),
        (lambda c: None, "this model is not quantized"),
    ],
)
def test_an_unknown_scheme_is_refused(broken, tmp_path, config, what):
    with pytest.raises(EdgeqError, match=what):
        convert(broken(config), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def dropped(name):
    return lambda arrays: arrays.pop(name)


def put(name, change):
    def run(arrays):
        arrays[name] = change(arrays[name])

    return run


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (dropped(f"{Q}.scales"), rf"lacks the tensor {Q}\.scales"),
        (dropped("model.norm.weight"), r"lacks the tensor model\.norm\.weight"),
        (put(f"{Q}.qweight", lambda a: a[:, :32].copy()), "has 32 output channels"),
        (put(f"{Q}.qweight", lambda a: a[:7].copy()), "a qweight of shape"),
        (put(f"{Q}.scales", lambda a: a[:1].copy()), "zero points of shape"),
        (put(f"{Q}.scales", lambda a: a * np.float16(np.inf)), "a scale is not finite"),
        (put(f"{Q}.g_idx", lambda a: a[::-1].copy()), "order of their activations"),
    ],
)
def test_a_damaged_model_is_refused(broken, tmp_path, change, what):
    with pytest.raises(EdgeqError, match=what):
        convert(broken(tensors_=change), tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(a) for a in arguments])
    return int(left.value.code or 0)


def test_the_command_says_what_it_made(quantized, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("convert", quantized, "-o", out) == 0
    printed = capsys.readouterr().out
    assert "gptq-int4-g32" in printed and "14 matrices  int4-g32" in printed and f"edgeq export {out}" in printed
    made = Checkpoint.open(out)
    assert made.manifest.source["format"] == "gptq" and made.manifest.source["files"]
    assert run("convert", quantized, "-o", out, "--force", "--json") == 0
    assert json.loads(capsys.readouterr().out)["grids"] == {"int4-g32": 14, "f32": 1}


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("./nowhere", "no such file or folder"),
        ("7B", "is a size class"),
        ("{empty}", "no config.json in this folder"),
        ("{pickle}", "a pickle, which edgeq never loads"),
        ("{truncated}", "truncated"),
        ("{shard}", "model-00002-of-00002.safetensors"),
        ("{checkpoint}", "this is an edgeq checkpoint already"),
        ("{taken}", "the output exists already"),
    ],
)
def test_bad_input_is_one_line_and_exit_two(quantized, tmp_path, capsys, name, line):
    (tmp_path / "empty").mkdir()
    (tmp_path / "m.bin").write_bytes(b"x")
    (tmp_path / "m.gguf").write_bytes(b"GGUF\3\0\0\0" + bytes(6))
    shutil.copytree(quantized, tmp_path / "shard")
    (tmp_path / "shard" / "model.safetensors").rename(tmp_path / "shard" / "model-00001-of-00002.safetensors")
    weight_map = {"a": "model-00002-of-00002.safetensors"}
    (tmp_path / "shard" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    paths = {"empty": tmp_path / "empty", "pickle": tmp_path / "m.bin", "truncated": tmp_path / "m.gguf"}
    paths |= {"shard": tmp_path / "shard", "checkpoint": quantized.parent / "q", "taken": quantized}
    out = quantized if name == "{taken}" else tmp_path / "out"
    assert run("convert", name.format(**paths), "-o", out) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: ") and line in said and "\n" not in said
    assert not (tmp_path / "out").exists()


def test_a_quantized_folder_is_no_source_and_says_what_is(quantized):
    with pytest.raises(EdgeqError) as refused:
        open_source(quantized)
    assert "quantized already" in refused.value.what and "edgeq convert" in (refused.value.hint or "")


def test_a_quantized_folder_is_measured_as_it_is(quantized):
    from edgeq.decoder.torch_model import TorchModel
    from edgeq.measure.model import open_model

    made = Checkpoint.open(quantized.parent / "q")
    ids = [1, 5, 9, 33, 2, 7]
    model = open_model(quantized)
    (found,) = model.logits([ids], lambda _: None)
    np.testing.assert_allclose(found, TorchModel(made).logits(ids), atol=1e-5, rtol=0)
    assert model.scheme == "gptq"
