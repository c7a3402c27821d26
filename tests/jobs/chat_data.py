"""A tiny model that talks on and on, its artifact, and waiting for what a chat says."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from edgeq.exporters.onnx.export import export
from edgeq.jobs.chat import Chat, News
from edgeq.model.names import hf_names
from edgeq.model.read import read_model
from edgeq.model.tensors import tensors
from edgeq.model.weights import open_source
from edgeq.quantize.engine import quantize
from edgeq.recipe import Recipe

WORDS = ["<unk>", "<s>", "</s>", *(f"w{i}" for i in range(157))]
TEMPLATE = "{% for m in messages %}<s> {{ m['content'] }} {% endfor %}"
POSITIONS = 131072  # an answer of so many tokens takes longer than any test waits before it acts


def write_model(folder: Path, template: str | None = TEMPLATE) -> Path:
    folder.mkdir(parents=True)
    config = {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_hidden_layers": 2,
        "vocab_size": len(WORDS),
        "max_position_embeddings": POSITIONS,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    }
    names = {"bos_token": "<s>", "eos_token": "</s>"} | ({"chat_template": template} if template else {})
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    spec = read_model(str(folder))
    rng, slices = np.random.default_rng(0), hf_names(spec)
    values = {t.name: rng.standard_normal(t.shape) * 0.05 + (t.role == "norm") for t in tensors(spec)}
    save_file({slices[n].name: v.astype(np.float32) for n, v in values.items()}, folder / "model.safetensors")
    return folder


def write_artifact(model: Path) -> Path:
    made = quantize(open_source(str(model)), Recipe(str(model)), model.with_name(f"{model.name}-int4"), threads=1)
    return export(made, model.with_name(f"{model.name}-int4-onnx")).path


def hear(chat: Chat, until: Callable[[list[News]], bool], seconds: float = 60) -> list[News]:
    """What it says until it is so."""
    end, said = time.monotonic() + seconds, []
    while not until(said):
        assert time.monotonic() < end, said[-3:]
        said += chat.news()
        time.sleep(0.01)
    return said
