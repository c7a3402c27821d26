"""A tiny random model on disk, journeys with it, and waiting for what a screen says."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from snapshot import characters
from textual.app import App
from textual.pilot import Pilot

from edgeq.journey import Journey, begin
from edgeq.model.names import hf_names
from edgeq.model.read import read_model
from edgeq.model.tensors import tensors
from edgeq.plan import Request

WORDS = ["<unk>", "<s>", "</s>", *(f"w{i}" for i in range(157))]


def write_model(folder: Path, layers: int = 4) -> Path:
    """A llama of a few layers, whose tokenizer has a word a number."""
    folder.mkdir(parents=True)
    config = {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_hidden_layers": layers,
        "vocab_size": len(WORDS),
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    (folder / "config.json").write_text(json.dumps(config))
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
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    spec = read_model(str(folder))
    rng, slices = np.random.default_rng(0), hf_names(spec)
    values = {t.name: rng.standard_normal(t.shape) * 0.05 + (t.role == "norm") for t in tensors(spec)}
    save_file({slices[n].name: v.astype(np.float32) for n, v in values.items()}, folder / "model.safetensors")
    return folder


def journey(folder: Path, model: Path | str, scheme: str = "rtn-int4-g32", **changes: object) -> Journey:
    """One that has chosen a candidate, and stands at the step quantize."""
    chosen = begin(folder).with_model(str(model)).with_choice(Request(context=64), scheme, "onnxruntime/cpu")
    return replace(chosen, step="quantize", **changes)  # type: ignore[arg-type]


async def until(pilot: Pilot[None], seen: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < end, f"still on the screen:\n{characters(pilot.app)}"
        await pilot.pause(0.05)
    await pilot.pause()


def guide(app: App[None]) -> str:
    return str(app.screen.query_one("#guide").render())


def problem(app: App[None]) -> str:
    return str(app.screen.query_one("#problem").render())
