"""Checkpoints as GGUF files: the same model, number for number, or a refusal before anything is written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeq.artifact import check_sums, read_artifact
from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.cli.main import main
from edgeq.errors import EdgeqError
from edgeq.estimate.gguf import tensor_bytes
from edgeq.exporters.gguf import GgufExporter
from edgeq.exporters.gguf.export import export
from edgeq.exporters.gguf.read_back import different_facts, read_back
from edgeq.model.tensors import tensors
from edgeq.model.weights import open_source
from edgeq.quantize.engine import quantize
from edgeq.recipe import Recipe

gguf = pytest.importorskip("gguf")

NAMES = ("llama", "llama-llama3-rope", "llama-linear-rope", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3")
NAMES += ("phi3-longrope", "olmo2", "granite", "smollm3")
NAMES += ("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "gpt_oss", "granitemoe")
WIDE = {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 1}
_WIDTHS = {"hidden_size", "intermediate_size"}
_FIELDS = {"mixtral": _WIDTHS, "gpt_oss": _WIDTHS, "qwen3_moe": {"hidden_size", "moe_intermediate_size"}}
_FIELDS["qwen2_moe"] = _FIELDS["qwen3_moe"] | {"shared_expert_intermediate_size"}
GRIDS: dict[str, dict[str, object]] = {
    **{g: {"grid": g} for g in ("q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "iq4_nl", "q4_k", "q6_k", "q3_k", "q2_k")},
    "iq4_xs": {"grid": "iq4_xs"},
    "affine-g32": {"grid": "affine"},
    "affine-g128": {"grid": "affine", "group_size": 128},
    "int4-sym-g32": {"symmetric": True},
    "int8-sym-g128": {"symmetric": True, "bits": 8, "group_size": 128},
    "int8-sym-row": {"symmetric": True, "bits": 8, "group_size": -1},
}


def _checkpoint(folder: Path, out: Path, **fields: object):
    return quantize(open_source(folder), Recipe(str(folder), **{"embed_grid": "q8_0", **fields}), out)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_holds_the_checkpoint_s_model(saved, tmp_path, hard_text, name):
    from tokenizers import Tokenizer

    checkpoint = _checkpoint(saved(name), tmp_path / "q", grid="q4_1")
    artifact = GgufExporter().export(checkpoint, tmp_path / "out")
    file = open_source(artifact.path / "model.gguf")
    assert list(different_facts(checkpoint.spec, file.spec)) == []
    for t in tensors(checkpoint.spec):
        meant = checkpoint.load(t.name)
        values = meant.dequantize() if isinstance(meant, QuantizedTensor) else meant
        values = values.reshape(t.shape) + np.float32(checkpoint.spec.norm_offset if t.role == "norm" else 0)
        np.testing.assert_array_equal(file.load(t.name), values, err_msg=t.name)
    before, after = (w.tokenizer_files()["tokenizer.json"] for w in (checkpoint, file))
    own, read = Tokenizer.from_file(str(before)), Tokenizer.from_str(after.decode())
    assert read.encode(hard_text).ids == own.encode(hard_text).ids
    assert read.decode(read.encode(hard_text).ids) == own.decode(own.encode(hard_text).ids)
    reader = gguf.GGUFReader(artifact.path / "model.gguf")
    assert len(reader.tensors) >= len({t.name for t in reader.tensors}) > 9
    check_sums(read_artifact(artifact.path))


@pytest.mark.parametrize("grid", GRIDS)
def test_every_grid_that_llama_cpp_stores_is_kept_bit_for_bit(saved, tmp_path, grid):
    checkpoint = _checkpoint(saved("llama", **WIDE), tmp_path / "q", **GRIDS[grid])
    artifact = GgufExporter().export(checkpoint, tmp_path / "out")
    assert read_back(artifact.path / "model.gguf", checkpoint) == []
    types = {t.name: t.tensor_type.name for t in gguf.GGUFReader(artifact.path / "model.gguf").tensors}
    meant = {"affine-g32": "Q4_1", "affine-g128": "Q4_1", "int4-sym-g32": "Q4_0", "int8-sym-g128": "Q8_0"}
    assert types["blk.0.attn_q.weight"] == meant.get(grid, "Q8_0" if "row" in grid else grid.upper())
    assert types["token_embd.weight"] == "Q8_0" and types["output_norm.weight"] == "F32"


@pytest.mark.parametrize(
    ("name", "fields", "file_type"),
    [
        ("mixtral", {"num_local_experts": 8}, "q4_k_m"),  # with 8 experts some types are others
        ("qwen3_moe", {}, "q4_k_m"),
        ("qwen2_moe", {}, "q4_k_s"),
        ("gpt_oss", {}, "q5_k_m"),
    ],
)
def test_a_mixture_s_file_is_as_large_as_estimated(saved, tmp_path, name, fields, file_type):
    """Its tensors, each padded, to the byte; experts of a role are one tensor."""
    wide = {"hidden_size": 256, "intermediate_size": 256, "moe_intermediate_size": 256}
    wide |= {"shared_expert_intermediate_size": 256} if name == "qwen2_moe" else {}
    source = saved(name, **fields, **{k: v for k, v in wide.items() if k in _FIELDS[name]})
    checkpoint = quantize(open_source(source), Recipe(str(source), method="minmax", grid=file_type), tmp_path / "q")
    file = GgufExporter().export(checkpoint, tmp_path / "out").path / "model.gguf"
    reader = gguf.GGUFReader(file)
    assert file.stat().st_size - reader.data_offset == tensor_bytes(checkpoint.spec, file_type.upper())
    experts = [t for t in reader.tensors if "ffn_up_exps.weight" in t.name]
    assert len(experts) == 4 and {len(t.shape) for t in experts} == {3}
    assert experts[0].tensor_type.name == f"Q{file_type[1]}_K"


def test_a_changed_number_or_fact_is_found(saved, tmp_path):
    checkpoint = _checkpoint(saved("llama"), tmp_path / "q", grid="q4_0")
    file = GgufExporter().export(checkpoint, tmp_path / "out").path / "model.gguf"
    info = next(t for t in gguf.GGUFReader(file).tensors if t.name == "blk.1.ffn_up.weight")
    data = bytearray(file.read_bytes())
    data[info.data_offset + 5] ^= 1
    file.write_bytes(data)
    assert read_back(file, checkpoint) == ["layers.1.up was read back with other values"]
    spec = checkpoint.spec
    first = replace(spec.layers[0], mixer=replace(spec.layers[0].mixer, window=9))
    changed = replace(spec, norm_eps=2e-5, layers=(first, *spec.layers[1:]))
    assert list(different_facts(changed, open_source(file).spec)) == ["norm_eps", "layer 0's window"]


@pytest.mark.parametrize(
    ("fields", "where", "what"),
    [
        ({"grid": "int", "bits": 8}, "layers.0.q", "no 8-bit blocks with zero points"),
        ({"grid": "affine", "group_size": 16}, "layers.0.q", "no multiple of llama.cpp's 32"),
        ({"grid": "affine", "bits": 6}, "layers.0.q", "no 6-bit blocks with minima"),
        ({"grid": "nf4"}, "layers.0.q", "no block type for the codebook"),
        ({"grid": "q4_0", "embed_grid": "int", "embed_bits": 8}, "embed", "no 8-bit blocks with zero points"),
    ],
)
def test_a_grid_without_a_block_type_is_refused(saved, tmp_path, fields, where, what):
    checkpoint = _checkpoint(saved("llama"), tmp_path / "q", **fields)
    with pytest.raises(EdgeqError, match=what) as refused:
        GgufExporter().export(checkpoint, tmp_path / "out")
    assert refused.value.where == where
    assert sorted(p.name for p in tmp_path.iterdir()) == ["q"]


@pytest.mark.parametrize(
    ("name", "fields", "what"),
    [
        ("mistral", {"sliding_window": 8}, "a window of 8 tokens"),
        ("gemma2", {"layer_types": ["full_attention"] * 4}, "no window"),
        ("gemma2", {"query_pre_attn_scalar": 20}, "scores multiplied"),
        ("smollm3", {"no_rope_layers": [1, 0, 1, 1]}, "no rotary embedding"),
        ("olmo2", {"tie_word_embeddings": True}, "head tied to the embedding"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}}, "kind dynamic"),
        ("qwen2", {"hidden_size": 96, "head_dim": 32}, "4 heads of 32 in a hidden size of 96"),
        ("qwen3_moe", {"norm_topk_prob": False}, "weights of experts that do not add up to one"),
        ("qwen2_moe", {"norm_topk_prob": True}, "weights of experts that add up to one"),
        ("qwen2_moe", {"mlp_only_layers": [1]}, "an MLP in place of experts"),
        ("olmoe", {"num_key_value_heads": 2}, "fewer heads of keys"),
        ("gpt_oss", {"swiglu_limit": 5.0}, "clamped to 5"),
        ("gpt_oss", {"layer_types": ["full_attention"] * 4}, "no window"),
    ],
)
def test_a_model_that_llama_cpp_would_compute_otherwise_is_refused(saved, tmp_path, name, fields, what):
    with pytest.raises(EdgeqError, match=what):
        GgufExporter().export(open_source(saved(name, **fields)), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_llama_cpp_rounds_in_yarn_is_noted(saved, tmp_path):
    rope = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}
    source = open_source(saved("gpt_oss", rope_parameters={**rope, "truncate": False}))
    artifact = GgufExporter().export(source, tmp_path / "out")
    assert read_back(artifact.path / "model.gguf", source) == []
    assert "whole dimensions" in read_artifact(artifact.path).model["deviation"]
    assert "deviation" not in GgufExporter().export(open_source(saved("qwen3_moe")), tmp_path / "other").model
    rounded = open_source(saved("gpt_oss", rope_parameters={**rope, "truncate": True}))
    artifact = GgufExporter().export(rounded, tmp_path / "rounded")
    assert read_back(artifact.path / "model.gguf", rounded) == []  # though the file can't say which of the two it is
    assert "deviation" not in artifact.model


def test_a_shorter_context_makes_a_window_moot(saved, tmp_path):
    source = open_source(saved("mistral", sliding_window=8))
    artifact = export(source, tmp_path / "out", context=8)
    assert read_back(artifact.path / "model.gguf", source) == []
    assert open_source(artifact.path / "model.gguf").spec.max_positions == artifact.model["max_positions"] == 8


def test_a_full_disk_leaves_nothing(saved, tmp_path):
    resource = pytest.importorskip("resource")
    source = open_source(saved("llama"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(EdgeqError, match="cannot write"):
            GgufExporter().export(source, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(a) for a in arguments])
    return int(left.value.code or 0)


def test_the_command_reads_the_file_back(saved, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("export", saved("qwen2"), "--to", "gguf", "-o", out) == 0
    printed = capsys.readouterr().out
    assert f"read back: {len(open_source(saved('qwen2')).names())} tensors, identical" in printed
    assert json.loads((out / "edgeq.json").read_text())["verify"]["verdict"] == "pass"


def test_the_command_fails_on_a_file_that_holds_something_else(saved, tmp_path, monkeypatch, capsys):
    """The exporter forgets that llama.cpp rotates neighbours."""
    monkeypatch.setattr("edgeq.exporters.gguf.export.gguf_permuted", lambda spec: False)
    assert run("export", saved("llama"), "--to", "gguf", "-o", tmp_path / "out") == 1
    assert "layers.0.q was read back with other values" in capsys.readouterr().out
    assert read_artifact(tmp_path / "out").verify["verdict"] == "fail"
