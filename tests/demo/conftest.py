"""A tiny llama as a folder, and a made-up machine, so that the demo's whole road takes a second or two."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgeq.demo import road
from edgeq.device.spec import Cpu, Device, Figure, Memory

VOCAB, HIDDEN, LAYERS, WIDTH = 288, 64, 2, 96


def write_model(folder: Path) -> Path:
    """A random llama in the Hugging Face layout, with a tokenizer whose tokens are bytes."""
    from safetensors.numpy import save_file
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    folder.mkdir()
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": HIDDEN,
        "intermediate_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": VOCAB,
        "max_position_embeddings": 160,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "hidden_act": "silu",
        "bos_token_id": 256,
        "eos_token_id": 257,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    rng = np.random.default_rng(0)

    def matrix(*shape: int) -> np.ndarray:
        return (0.2 * rng.standard_normal(shape)).astype(np.float32)

    tensors = {"model.embed_tokens.weight": matrix(VOCAB, HIDDEN), "model.norm.weight": np.ones(HIDDEN, np.float32)}
    for i in range(LAYERS):
        at = f"model.layers.{i}"
        for name, rows, columns in (("q", HIDDEN, HIDDEN), ("k", 32, HIDDEN), ("v", 32, HIDDEN), ("o", HIDDEN, HIDDEN)):
            tensors[f"{at}.self_attn.{name}_proj.weight"] = matrix(rows, columns)
        for name, rows, columns in (("gate", WIDTH, HIDDEN), ("up", WIDTH, HIDDEN), ("down", HIDDEN, WIDTH)):
            tensors[f"{at}.mlp.{name}_proj.weight"] = matrix(rows, columns)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{at}.{name}.weight"] = np.ones(HIDDEN, np.float32)
    save_file(tensors, str(folder / "model.safetensors"))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}), "utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("demo") / "tiny-llama")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    """A device that needs no measuring, and a home of its own."""
    monkeypatch.setenv("EDGEQ_HOME", str(tmp_path / "home"))
    cpu = Cpu("Test processor", "x86_64", 2, 2, ("avx2",))
    memory = Memory(16 << 30, 8 << 30, Figure(20e9, "B/s", "measured"))
    device = Device("test", "local", "Linux", cpu, memory)
    monkeypatch.setattr(road, "profile_device", lambda **_: device)
    return device
