"""A random llama of a few numbers on disk, in the Hugging Face layout, for every test that needs a model to work on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from edgeq.model.names import hf_names
from edgeq.model.read import read_model
from edgeq.model.tensors import tensors

WORDS = ["<unk>", "<s>", "</s>", *(f"w{i}" for i in range(157))]
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "vocab_size": len(WORDS),
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def write_llama(folder: Path, *, spread: float = 0.05, **fields: object) -> Path:
    """`config.json` and the weights, always the same ones.

    Args:
        folder: is made.
        spread: standard deviation of the weights, and of the norms about one.
        fields: of the configuration, instead of `CONFIG`'s.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **fields}))
    spec = read_model(str(folder))
    rng, slices = np.random.default_rng(0), hf_names(spec)
    values = {t.name: rng.standard_normal(t.shape) * spread + (t.role == "norm") for t in tensors(spec)}
    save_file({slices[n].name: v.astype(np.float32) for n, v in values.items()}, folder / "model.safetensors")
    return folder


def write_words(folder: Path, template: str | None = None) -> None:
    """A tokenizer with `WORDS`, one a number, parted by spaces; and a chat template."""
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {word: i for i, word in enumerate(WORDS)}, "unk_token": "<unk>"},
    }
    names = {"bos_token": "<s>", "eos_token": "</s>"} | ({"chat_template": template} if template else {})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
