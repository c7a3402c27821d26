"""A tiny model folder of random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save_file

from edgeq.model.names import hf_names
from edgeq.model.read import read_model
from edgeq.model.tensors import tensors

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 3,
    "vocab_size": 80,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
}


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., Path]:
    """Writes a folder with config.json, model.safetensors and a tokenizer.json; keywords change the config."""

    def make(name: str = "tiny", **changes: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({**LLAMA, **changes}))
        (folder / "tokenizer.json").write_text('{"model": {}}')
        spec = read_model(str(folder))
        rng = np.random.default_rng(0)
        slices = hf_names(spec)
        assert all(s.row_start is None for s in slices.values())
        values = {t.name: rng.standard_normal(t.shape) * 0.05 + (t.role == "norm") for t in tensors(spec)}
        save_file({slices[n].name: v.astype(np.float32) for n, v in values.items()}, folder / "model.safetensors")
        return folder

    return make


@pytest.fixture
def ids() -> npt.NDArray[np.int64]:
    """Calibration text for the tiny model: 40 sequences of 64 tokens, two batches."""
    return np.random.default_rng(1).integers(0, LLAMA["vocab_size"], (40, 64))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a checkpoint but the report, which holds times."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "report.json")
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


@pytest.fixture(name="contents")
def contents_fixture() -> Callable[[Path], dict[str, bytes]]:
    return contents
