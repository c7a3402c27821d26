"""Hugging Face folders: what transformers computes from them, and that they hold the checkpoint to the bit."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from edgeq.artifact import check_sums, read_artifact
from edgeq.checkpoint.store import Checkpoint
from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.checkpoint.weights import dense
from edgeq.cli.main import main
from edgeq.conversion import convert
from edgeq.decoder.torch_model import TorchModel
from edgeq.errors import EdgeqError
from edgeq.exporters.huggingface import AwqExporter, CompressedTensorsExporter, GptqExporter
from edgeq.exporters.huggingface import export as export_module
from edgeq.model.safetensors_file import SafetensorsFile
from edgeq.model.weights import open_source
from edgeq.registry import exporter

EXPORTERS = {"compressed-tensors": CompressedTensorsExporter, "gptq": GptqExporter, "awq": AwqExporter}
IDS = np.random.default_rng(7).integers(3, 160, 20).tolist()
UNTIED = {"tie_word_embeddings": False}
SYMMETRIC = {"symmetric": True, "embed_symmetric": True}


def loaded(folder):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.inference_mode():
        return model(torch.tensor([IDS]), use_cache=False).logits[0].float().numpy()


def same(a, b) -> bool:
    """The same grid, codes and parameters, or the same floats, to the bit."""
    if not isinstance(a, QuantizedTensor) or not isinstance(b, QuantizedTensor):
        return not isinstance(b, QuantizedTensor) and dense(a).tobytes() == dense(b).tobytes()
    parts = zip((a.codes, *a.parameters.arrays()), (b.codes, *b.parameters.arrays()), strict=True)
    return a.grid == b.grid and all(x is y or x.tobytes() == y.tobytes() for x, y in parts)


def config_of(folder):
    return json.loads((folder / "config.json").read_text())["quantization_config"]


@pytest.mark.parametrize(
    ("recipe", "fields"),
    [
        (SYMMETRIC, {}),
        ({**SYMMETRIC, "bits": 2, "head": "linear"}, UNTIED),
        ({**SYMMETRIC, "bits": 3, "group_size": -1}, UNTIED),
        ({**SYMMETRIC, "bits": 8, "head": "float"}, UNTIED),
        ({"grid": "q4_0", "embed_grid": "q8_0"}, UNTIED),
        ({"grid": "ternary"}, {}),
        ({**SYMMETRIC}, {"kind": "phi3", **UNTIED}),
        ({**SYMMETRIC}, {"kind": "gemma2", "head_dim": 32, "hidden_activation": "gelu_pytorch_tanh"}),
        ({"bits": 16, "method": "none", "embed_bits": 16}, {}),
    ],
    ids=str,
)
def test_transformers_computes_what_the_checkpoint_says(checkpoint, tmp_path, recipe, fields):
    made = checkpoint(recipe, **fields)
    artifact = CompressedTensorsExporter().export(made, tmp_path / "out")
    expected = TorchModel(made).logits(IDS)
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(loaded(artifact.path), expected, atol=1e-4, rtol=0)
    assert CompressedTensorsExporter().read_back(artifact, made) == []
    check_sums(read_artifact(artifact.path))


@pytest.mark.parametrize("activations", ["dynamic", "static"])
def test_eight_bit_activations_are_computed_by_transformers(checkpoint, tmp_path, activations):
    recipe = {"bits": 8, "group_size": -1, "symmetric": True, "activations": activations, "method": "gptq"}
    made = checkpoint(recipe)
    artifact = CompressedTensorsExporter().export(made, tmp_path / "out")
    group = config_of(artifact.path)["config_groups"]["group_0"]
    assert group["format"] == "int-quantized" and group["input_activations"]["dynamic"] is (activations == "dynamic")
    expected, found = TorchModel(made).logits(IDS), loaded(artifact.path)
    # Rounding to 8 bits flips where sums differ in their last bit: compare with what leaving the rounding out costs.
    plain = TorchModel(_WithoutActivations(made)).logits(IDS)
    assert np.abs(found - expected).mean() < 0.2 * np.abs(plain - expected).mean()
    assert CompressedTensorsExporter().read_back(artifact, made) == []
    again = convert(artifact.path, tmp_path / "again")
    grids = [made.activation(n) for n in made.names()]
    assert len({g for g in grids if g}) > (activations == "static")
    stored = [again.activation(n) for n in made.names()]
    for a, b in zip(grids, stored, strict=True):
        assert (a and (a.kind, a.bits, a.symmetric, a.zero_point)) == (
            b and (b.kind, b.bits, b.symmetric, b.zero_point)
        )
        assert a is None or a.scale is None or b.scale == np.float32(a.scale)


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_inputs_of_sixteen_bits_are_computed_by_transformers(checkpoint, tmp_path, kind):
    """What edgeq gives a layer that 8 bits would ruin."""
    recipe = {"bits": 8, "group_size": -1, "symmetric": True, "activations": kind, "method": "gptq"}
    folder = tmp_path / "q"
    shutil.copytree(checkpoint(recipe).path, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    for entry in manifest["tensors"].values():
        if entry["activation"]:
            entry["activation"]["bits"] = 16
            if kind == "static":
                zero = entry["activation"]["zero_point"] * 257
                entry["activation"] |= {"scale": entry["activation"]["scale"] / 257, "zero_point": zero}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    made = Checkpoint.open(folder)
    artifact = CompressedTensorsExporter().export(made, tmp_path / "out")
    np.testing.assert_allclose(loaded(artifact.path), TorchModel(made).logits(IDS), atol=5e-3, rtol=0)
    assert CompressedTensorsExporter().read_back(artifact, made) == []
    assert "vLLM has no kernel" in " ".join(artifact.notes)


class _WithoutActivations:
    def __init__(self, weights: Checkpoint) -> None:
        self.spec, self.names, self.load = weights.spec, weights.names, weights.load


GRIDS = {
    "compressed-tensors": [
        {"bits": b, "group_size": g, "symmetric": s} for b in (2, 4, 5, 8) for g, s in ((32, 0), (-1, 1))
    ],
    "gptq": [{"bits": b, "group_size": g, "symmetric": s} for b in (2, 3, 4, 8) for g, s in ((32, 1), (128, 0))],
    "awq": [{"bits": 4, "group_size": g, "symmetric": s} for g in (16, 32, -1) for s in (0, 1)],
}


@pytest.mark.parametrize(("name", "recipe"), [(n, r) for n, rs in GRIDS.items() for r in rs], ids=str)
def test_export_and_convert_give_the_checkpoint_back(checkpoint, tmp_path, name, recipe):
    recipe = {**recipe, "symmetric": bool(recipe["symmetric"]), "head": "linear"}
    made = checkpoint(recipe, **UNTIED)
    artifact = EXPORTERS[name]().export(made, tmp_path / "out")
    assert EXPORTERS[name]().read_back(artifact, made) == []
    again = convert(artifact.path, tmp_path / "again")
    again.verify()
    for tensor in made.names():
        a, b = made.load(tensor), again.load(tensor)
        if tensor == "embed":
            np.testing.assert_array_equal(dense(a), dense(b))
            assert "embed_tokens.weight is stored as float32" in artifact.notes[-1]
        else:
            assert same(a, b), tensor
    assert again.scheme.linear == made.scheme.linear
    assert again.spec.layers == made.spec.layers


def test_a_mixture_names_its_groups(checkpoint, tmp_path):
    made = checkpoint({**SYMMETRIC, "embed_group_size": 16}, **UNTIED)  # the head has 8 bits in groups of 16
    artifact = CompressedTensorsExporter().export(made, tmp_path / "out")
    groups = config_of(artifact.path)["config_groups"]
    targets = [g["targets"] for g in groups.values()]
    assert ["lm_head"] in targets and r"re:^model\.layers\.(0|1)\.self_attn\.q_proj$" in targets[0]
    np.testing.assert_allclose(loaded(artifact.path), TorchModel(made).logits(IDS), atol=1e-4, rtol=0)
    gptq = GptqExporter().export(made, tmp_path / "gptq")
    config = config_of(gptq.path)
    assert config["dynamic"] == {r"+:^lm_head$": {"bits": 8, "group_size": 16, "sym": True}} and config["lm_head"]
    assert (config["bits"], config["group_size"], config["checkpoint_format"]) == (4, 32, "gptq")
    assert same(convert(gptq.path, tmp_path / "again").load("head"), made.load("head"))
    awq = AwqExporter().export(made, tmp_path / "awq")  # a head that AWQ can't hold stays float
    assert config_of(awq.path)["modules_to_not_convert"] == ["lm_head"]
    assert "lm_head.weight is stored as float32" in " ".join(awq.notes)


def test_large_models_are_written_in_several_files(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "SHARD_BYTES", 20_000)
    made = checkpoint(SYMMETRIC)
    artifact = CompressedTensorsExporter().export(made, tmp_path / "out")
    files = sorted(p.name for p in artifact.path.glob("*.safetensors"))
    assert len(files) > 2 and files[0] == f"model-00001-of-{len(files):05}.safetensors"
    np.testing.assert_allclose(loaded(artifact.path), TorchModel(made).logits(IDS), atol=1e-4, rtol=0)


def test_floats_take_the_narrowest_exact_type():
    kinds = {1.0: "float16", 2.0**-40: "bfloat16", 1 + 2.0**-20: "float32"}
    for value, kind in kinds.items():
        assert export_module.exact(np.array([[value]], np.float32)).dtype.name == kind


@pytest.mark.parametrize(
    ("name", "recipe", "fields", "what", "where"),
    [
        ("compressed-tensors", {"grid": "affine"}, {}, "integer zero points", "layers.0.q"),
        ("compressed-tensors", {"group_size": 128}, {}, "whole groups of 128", "layers.0.q"),
        ("gptq", {"bits": 5}, {}, "no 5-bit codes", "layers.0.q"),
        ("gptq", {}, {"intermediate_size": 80, "hidden_size": 64}, "whole words of 32", "layers.0.gate"),
        ("awq", {"bits": 8}, {}, "4-bit codes only", "layers.0.q"),
        ("awq", {"bits": 16, "method": "none", "embed_bits": 16}, {}, "nothing in this model is quantized", "tiny"),
        ("gptq", {"bits": 8, "activations": "dynamic"}, {}, "no quantized activations", "layers.0.q"),
    ],
)
def test_what_a_layout_can_t_hold_is_refused(checkpoint, tmp_path, name, recipe, fields, what, where):
    made = checkpoint(recipe, **fields)
    with pytest.raises(EdgeqError, match=what) as refused:
        EXPORTERS[name]().export(made, tmp_path / "out")
    assert refused.value.where == where or where == "tiny"
    assert list(tmp_path.iterdir()) == []


def test_a_changed_number_is_found(checkpoint, tmp_path):
    made = checkpoint(SYMMETRIC)
    artifact = CompressedTensorsExporter().export(made, tmp_path / "out")
    file = artifact.path / "model.safetensors"
    at = SafetensorsFile.open(file).tensors["model.layers.1.mlp.up_proj.weight_packed"].start
    data = bytearray(file.read_bytes())
    data[at + 5] ^= 1
    file.write_bytes(data)
    assert CompressedTensorsExporter().read_back(artifact, made) == ["layers.1.up was read back with other values"]
    config = json.loads((artifact.path / "config.json").read_text())
    (artifact.path / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
    assert CompressedTensorsExporter().read_back(artifact, made) == ["norm_eps was read back as something else"]


def test_the_command_exports_and_reads_back(checkpoint, tmp_path, capsys):
    made = checkpoint({})
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as left:
        main(["export", str(made.path), "--to", "gptq", "-o", str(out)])
    printed = capsys.readouterr().out
    assert not left.value.code and f"read back: {len(made.names())} tensors, identical" in printed
    assert "note: its checkpoint_format is gptq_v2" in printed
    assert read_artifact(out).verify["verdict"] == "pass"


def test_the_exporters_are_found_by_name():
    assert {type(exporter(name)) for name in EXPORTERS} == set(EXPORTERS.values())


def test_a_float_model_is_a_plain_folder(saved, tmp_path):
    source = open_source(saved("qwen2"))
    artifact = CompressedTensorsExporter().export(source, tmp_path / "out")
    assert "quantization_config" not in json.loads((artifact.path / "config.json").read_text())
    assert CompressedTensorsExporter().read_back(artifact, source) == []
    np.testing.assert_allclose(loaded(artifact.path), TorchModel(source).logits(IDS), atol=1e-4, rtol=0)
