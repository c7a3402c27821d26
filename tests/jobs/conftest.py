"""A home of the test's own, a model to quantize, and workers that do nothing of use."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from edgeq.jobs import all_jobs, cancel, control
from edgeq.jobs.job import Job, Look
from edgeq.model.names import hf_names
from edgeq.model.read import read_model
from edgeq.model.tensors import tensors

CONFIG = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 24,
    "vocab_size": 512,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
}


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    home = tmp_path / "home"
    monkeypatch.setenv("EDGEQ_HOME", str(home))
    yield home
    for job in all_jobs():
        cancel(job)


@pytest.fixture
def idle_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of the kinds of `slow_worker`."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setattr(control, "WORKER", "slow_worker")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A random model of 24 layers."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text('{"model": {}}')
    spec = read_model(str(folder))
    rng, slices = np.random.default_rng(0), hf_names(spec)
    values = {slices[t.name].name: rng.standard_normal(t.shape).astype(np.float32) for t in tensors(spec)}
    save_file(values, folder / "model.safetensors")
    return folder


def until(job: Job, seen: Callable[[Look], bool], seconds: float = 60) -> Look:
    """Look until it is so."""
    end = time.monotonic() + seconds
    while not seen(found := control.look(job)):
        assert time.monotonic() < end, f"still {found}"
        time.sleep(0.02)
    return found


@pytest.fixture(name="until")
def until_fixture() -> Callable[..., Look]:
    return until
