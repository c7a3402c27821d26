"""`edgeq export` on a tiny model: from a folder and from a checkpoint to an artifact that every runtime opens alike."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import edgeq
from edgeq.artifact import read_artifact
from edgeq.cli.main import main
from edgeq.model.weights import open_source
from edgeq.quantize.engine import quantize
from edgeq.recipe import Recipe

WORDS = ["<unk>", "<s>", "</s>", *(f"w{i}" for i in range(157))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with a tokenizer, as transformers saves it."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import LlamaConfig, LlamaForCausalLM

    path = tmp_path_factory.mktemp("tiny")
    sizes = {"vocab_size": len(WORDS), "hidden_size": 64, "intermediate_size": 96, "max_position_embeddings": 128}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    torch.manual_seed(1)
    config = LlamaConfig(**sizes, **heads, bos_token_id=1, eos_token_id=2, tie_word_embeddings=True)
    LlamaForCausalLM(config).float().save_pretrained(path)
    tokenizer = Tokenizer(WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    return path


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(a) for a in arguments])
    return int(left.value.code or 0)


def test_a_float_model_is_exported_verified_and_runs(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("export", folder, "--to", "onnx", "-o", out) == 0
    printed = capsys.readouterr().out
    assert "computes what the checkpoint says" in printed
    assert f"edgeq run {out}" in printed
    assert "activations to 8 bits" not in printed
    artifact = read_artifact(out)
    assert artifact.verify["verdict"] == "pass"
    assert artifact.scheme == "fp32"


def test_openvino_is_verified_and_runs(folder, tmp_path, capsys):
    pytest.importorskip("openvino")
    out, exact = tmp_path / "out", ("--kv-dtype", "f32", "--dynamic-quantization", 0)
    assert run("export", folder, "--to", "openvino", "-o", out, *exact) == 0
    printed = capsys.readouterr().out
    assert "computes what the checkpoint says" in printed and f"edgeq run {out}" in printed
    artifact = read_artifact(out)
    assert artifact.verify["path"] == "float"
    assert (artifact.options["kv_dtype"], artifact.options["dynamic_quantization"]) == ("f32", 0)
    assert {"openvino_tokenizer.xml", "openvino_detokenizer.xml"} <= set(artifact.files) or (
        artifact.model["no_tokenizer_models"]
    )


def test_both_runtimes_give_the_checkpoint_s_logits(folder, tmp_path):
    checkpoint = quantize(open_source(folder), Recipe(str(folder), group_size=16), tmp_path / "q")
    out = tmp_path / "out"
    assert run("export", checkpoint.path, "-o", out, "--accuracy-level", 0, "--context", 64) == 0
    ids = [1, 5, 9, 33, 2, 7]
    with edgeq.load(out) as fast, edgeq.load(out, runtime="torch") as reference:
        np.testing.assert_allclose(fast.logits(ids), reference.logits(ids), atol=1e-5, rtol=0)
        prompt = "w3 w4 w5"
        assert fast.generate(prompt, max_tokens=8) == reference.generate(prompt, max_tokens=8)
        assert fast.generate(prompt, max_tokens=8) == reference.generate(prompt, max_tokens=8)
    assert read_artifact(out).options["accuracy_level"] == 0
    assert read_artifact(out).model["max_positions"] == 64


def test_json_prints_the_manifest(folder, tmp_path, capsys):
    assert run("export", folder, "-o", tmp_path / "out", "--no-verify", "--json") == 0
    manifest = json.loads(capsys.readouterr().out)
    assert manifest["runtime"] == "onnxruntime"
    assert manifest["verify"] == {}


def test_a_wrong_artifact_exits_with_one(folder, tmp_path, monkeypatch, capsys):
    """The exporter scales a residual branch by two: the graph runs, and computes something else."""
    from edgeq.exporters.onnx.onnx_ops import OnnxOps

    right = OnnxOps.add_norm
    monkeypatch.setattr(OnnxOps, "add_norm", lambda self, x, d, name: right(self, x, self.scale(d, 2.0), name))
    assert run("export", folder, "-o", tmp_path / "out") == 1
    assert "Do not use this artifact" in capsys.readouterr().out
    assert read_artifact(tmp_path / "out").verify["verdict"] == "fail"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("nowhere-at-all/",), "no model named"),
        (("{folder}", "--to", "tflite"), "no exporter named 'tflite'"),
        (("{folder}", "--accuracy-level", "3"), "accuracy level 3"),
        (("{folder}", "--context", "100000"), "a context of 100000"),
        (("{folder}", "--to", "gguf", "--accuracy-level", "0"), "the gguf exporter has no --accuracy-level"),
        (("{folder}", "--to", "openvino", "--accuracy-level", "0"), "the openvino exporter has no --accuracy-level"),
        (("{folder}", "--to", "openvino", "--kv-dtype", "q4_0"), "OpenVINO keeps no q4_0 cache on the cpu"),
        (("{folder}", "--to", "openvino", "--device", "npu"), "symmetric int4 in groups of 128"),
        (("{folder}", "--device", "npu"), "openvino has that one"),
        (("{folder}", "-o", "{folder}"), "the output exists already"),
    ],
)
def test_bad_input_is_one_line_and_exit_two(folder, tmp_path, capsys, arguments, line):
    given = [a.format(folder=folder) for a in arguments]
    if "-o" not in given:
        given += ["-o", str(tmp_path / "out")]
    assert run("export", *given) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: ") and line in said and "\n" not in said
    assert not (tmp_path / "out").exists()


def test_the_standard_dialect_is_verified_and_runs(folder, tmp_path, capsys):
    checkpoint = quantize(open_source(folder), Recipe(str(folder), group_size=16), tmp_path / "q")
    out = tmp_path / "out"
    assert run("export", checkpoint.path, "-o", out, "--dialect", "standard", "--accuracy-level", 0) == 0
    assert "computes what the checkpoint says" in capsys.readouterr().out
    artifact = read_artifact(out)
    assert (artifact.options["dialect"], artifact.verify["path"]) == ("standard", "float")
    with edgeq.load(out) as fast, edgeq.load(out, runtime="torch") as reference:
        prompt = "w3 w4 w5"
        assert fast.generate(prompt, max_tokens=8) == reference.generate(prompt, max_tokens=8)


def test_small_packing_is_smaller_and_verified(folder, tmp_path, capsys):
    checkpoint = quantize(open_source(folder), Recipe(str(folder), bits=3, embed_bits=3), tmp_path / "q")
    sizes = {}
    for pack in ("fast", "small"):
        out = tmp_path / pack
        assert run("export", checkpoint.path, "-o", out, "--pack", pack) == 0
        printed = " ".join(capsys.readouterr().out.split())
        assert "computes what the checkpoint says" in printed
        assert "rounds activations to 8 bits, so where two tokens are close it may choose the other one" in printed
        sizes[pack] = (out / "model.onnx.data").stat().st_size
    assert sizes["small"] < 0.9 * sizes["fast"]


def test_a_flag_of_another_exporter_is_named(folder, tmp_path, capsys):
    assert run("export", folder, "--to", "gguf", "-o", tmp_path / "out", "--dialect", "standard") == 2
    assert "the gguf exporter has no --dialect" in capsys.readouterr().err
