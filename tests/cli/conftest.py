"""A tiny model folder for commands that quantize it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from edgeq.model.names import hf_names
from edgeq.model.read import read_model
from edgeq.model.tensors import tensors

CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "vocab_size": 80,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    spec = read_model(str(folder))
    rng, slices = np.random.default_rng(0), hf_names(spec)
    values = {slices[t.name].name: rng.standard_normal(t.shape).astype(np.float32) for t in tensors(spec)}
    save_file(values, folder / "model.safetensors")
    return folder
