"""Source folders and GGUF files give the same tensors under canonical names; contradictions are said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file, save_file

from edgeq.errors import EdgeqError
from edgeq.model import download
from edgeq.model.names import gguf_slices, hf_names
from edgeq.model.read import read_model
from edgeq.model.spec import ModelSpec
from edgeq.model.tensors import tensors
from edgeq.model.weights import GgufWeights, open_source

COMMON: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "num_hidden_layers": 2,
    "vocab_size": 80,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}
LLAMA = {**COMMON, "model_type": "llama", "hidden_act": "silu"}
QWEN2 = {**COMMON, "model_type": "qwen2", "hidden_act": "silu"}
PHI3 = {**COMMON, "model_type": "phi3", "hidden_act": "silu", "pad_token_id": 0}
GEMMA2 = {
    **COMMON,
    "model_type": "gemma2",
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 16,
    "sliding_window": 32,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "tie_word_embeddings": True,
}


Values = dict[str, npt.NDArray[np.float32]]


def folder(path: Path, config: dict[str, Any]) -> tuple[Path, ModelSpec, Values]:
    """A folder of random weights, and what each canonical tensor should be."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    spec = read_model(str(path))
    rng, slices = np.random.default_rng(0), hf_names(spec)
    values = {t.name: rng.standard_normal(t.shape).astype(np.float32) for t in tensors(spec)}
    files: dict[str, list[tuple[int, npt.NDArray[np.float32]]]] = {}
    for name, at in slices.items():
        files.setdefault(at.name, []).append((at.row_start or 0, values[name]))
    fused = {n: np.concatenate([v for _, v in sorted(parts, key=lambda p: p[0])]) for n, parts in files.items()}
    save_file(fused, path / "model.safetensors")
    return path, spec, values


def permuted(w: npt.NDArray[Any], heads: int) -> npt.NDArray[Any]:
    """As llama.cpp's converter orders the rows of q and k: each head's two halves interleaved."""
    out = np.empty_like(w)
    dim = len(w) // heads
    for head in range(heads):
        for i in range(dim // 2):
            out[head * dim + 2 * i] = w[head * dim + i]
            out[head * dim + 2 * i + 1] = w[head * dim + dim // 2 + i]
    return out


def gguf_file(path: Path, spec: ModelSpec, values: Values, permute: bool) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    for name, at in gguf_slices(spec).items():
        part, v = name.rpartition(".")[2], values[name]
        if permute and part in {"q", "k"}:
            v = permuted(v, 4 if part == "q" else 2)
        if spec.norm_offset and part.endswith("norm"):
            v = v + 1
        writer.add_tensor(at.name, v)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("config", [LLAMA, QWEN2, PHI3, GEMMA2], ids=lambda c: str(c["model_type"]))
def test_a_folder_gives_every_tensor(tmp_path: Path, config: dict[str, Any]) -> None:
    path, spec, values = folder(tmp_path / "m", config)
    source = open_source(path)
    assert source.spec == spec and list(source.names()) == list(values)
    for name, expected in values.items():
        assert np.array_equal(source.load(name), expected)
    with pytest.raises(EdgeqError, match="no tensor"):
        source.load("layers.0.nothing")


@pytest.mark.parametrize(("config", "permute"), [(LLAMA, True), (QWEN2, False), (GEMMA2, False)])
def test_a_gguf_gives_what_its_folder_gave(tmp_path: Path, config: dict[str, Any], permute: bool) -> None:
    _, spec, values = folder(tmp_path / "m", config)
    source = GgufWeights(gguf_file(tmp_path / "m.gguf", spec, values, permute), spec)
    for name, expected in values.items():
        # Adding and taking away Gemma's one rounds.
        assert np.allclose(source.load(name), expected, rtol=0, atol=2e-7), name


def test_shards_and_bfloat16(tmp_path: Path) -> None:
    path, spec, values = folder(tmp_path / "m", LLAMA)
    stored = load_file(path / "model.safetensors")
    (path / "model.safetensors").unlink()
    names = sorted(stored)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, inside in parts.items():
        save_file({n: stored[n] for n in inside}, path / file)
    index = {"weight_map": {n: file for file, inside in parts.items() for n in inside}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    source = open_source(path, spec)
    assert all(np.array_equal(source.load(n), v) for n, v in values.items())
    assert [p.name for p in source.files] == ["a.safetensors", "b.safetensors"]


def test_tokenizer_files_are_handed_on(tmp_path: Path) -> None:
    path, _, _ = folder(tmp_path / "m", LLAMA)
    for name in ("tokenizer.json", "chat_template.jinja", "README.md"):
        (path / name).write_text("{}")
    assert set(open_source(path).tokenizer_files()) == {"tokenizer.json", "chat_template.jinja"}


def rewrite(path: Path, change: Any) -> None:
    stored = load_file(path / "model.safetensors")
    change(stored)
    save_file(stored, path / "model.safetensors")


def test_contradictions_are_said(tmp_path: Path) -> None:
    path, spec, _ = folder(tmp_path / "m", LLAMA)
    q = "model.layers.1.self_attn.q_proj.weight"
    rewrite(path, lambda s: s.update({q: np.zeros((64, 60), np.float32)}))
    with pytest.raises(EdgeqError, match=r"q_proj\.weight.*\[64, 60\].*\[64, 64\]"):
        open_source(path, spec)
    rewrite(path, lambda s: s.pop(q))
    with pytest.raises(EdgeqError, match=r"lacks the tensor model\.layers\.1\.self_attn\.q_proj"):
        open_source(path, spec)
    rewrite(path, lambda s: s.update({q.replace("weight", "qweight"): np.zeros((8, 64), np.int32)}))
    with pytest.raises(EdgeqError, match="quantized already"):
        open_source(path, spec)


def test_fused_rows_beyond_the_tensor(tmp_path: Path) -> None:
    path, spec, _ = folder(tmp_path / "m", PHI3)
    name = "model.layers.0.mlp.gate_up_proj.weight"
    rewrite(path, lambda s: s.update({name: s[name][:100].copy()}))
    with pytest.raises(EdgeqError, match=r"gate_up_proj\.weight has shape"):
        open_source(path, spec)


def test_what_is_not_a_model_gets_one_line(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    pickles = tmp_path / "pickles"
    pickles.mkdir()
    (pickles / "config.json").write_text(json.dumps(LLAMA))
    (pickles / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR.")
    for ref, says in [
        (tmp_path / "none", "no such file"),
        (tmp_path / "none.gguf", "no such file"),
        (tmp_path / "m.pth", "save_pretrained"),
        (pickles, "save_pretrained"),
        (pickles / "pytorch_model.bin", "never loads"),
        (tmp_path / "notes.txt", "not a model file"),
        (tmp_path, "no config.json"),
        ("7B", "size class"),
    ]:
        with pytest.raises(EdgeqError, match=says):
            open_source(ref)


def test_a_part_of_a_split_gguf_is_refused(tmp_path: Path) -> None:
    _, spec, _ = folder(tmp_path / "m", LLAMA)
    writer = gguf.GGUFWriter(tmp_path / "p.gguf", "llama")
    writer.add_uint16("split.count", 3)
    writer.add_tensor("output_norm.weight", np.ones(64, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(EdgeqError, match="split"):
        GgufWeights(tmp_path / "p.gguf", spec)


def test_the_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(*_: Any, **__: Any) -> str:
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(EdgeqError, match="out of reach"):
        download.snapshot("org/model")
