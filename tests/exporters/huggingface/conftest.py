"""Tiny random models as transformers saves them, and checkpoints of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeq.checkpoint.store import Checkpoint
from edgeq.model.weights import open_source
from edgeq.quantize.engine import quantize
from edgeq.recipe import Recipe

_BASE: dict[str, Any] = {
    "vocab_size": 160,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`saved(model_type, **fields)`: the folder of a tiny model, made once."""
    made: dict[str, Path] = {}

    def make(kind: str = "llama", **fields: Any) -> Path:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        key = json.dumps([kind, fields])
        if key not in made:
            made[key] = tmp_path_factory.mktemp("tiny")
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**_BASE, **fields})).float()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter) * (0.3 if parameter.ndim == 1 else 0.15))
            model.save_pretrained(made[key])
        return made[key]

    return make


@pytest.fixture(scope="session")
def checkpoint(saved, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Checkpoint]:
    """`checkpoint(recipe fields, **model fields)`, made once."""
    made: dict[str, Checkpoint] = {}

    def make(recipe: dict[str, Any] | None = None, kind: str = "llama", **fields: Any) -> Checkpoint:
        key = json.dumps([recipe, kind, fields])
        if key not in made:
            folder = saved(kind, **fields)
            out = tmp_path_factory.mktemp("checkpoint") / "q"
            tokens = [[(7 * i * j + 3) % 157 + 3 for i in range(16)] for j in range(1, 9)]
            made[key] = quantize(open_source(folder), Recipe(str(folder), **(recipe or {})), out, tokens=tokens)
        return made[key]

    return make
