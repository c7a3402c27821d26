"""The names an application imports."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import edgeq

TINY = {
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
}


@pytest.fixture
def model(tmp_path):
    import numpy as np
    from safetensors.numpy import save_file

    from edgeq.model.config import read_config
    from edgeq.model.names import hf_names
    from edgeq.model.tensors import tensors

    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(TINY))
    spec = read_config(TINY, name="tiny")
    names = hf_names(spec)
    rng = np.random.default_rng(0)
    save_file(
        {names[t.name].name: rng.normal(0, 0.1, t.shape).astype(np.float32) for t in tensors(spec)},
        folder / "model.safetensors",
    )
    return str(folder)


def test_inspect_plan_and_quantize(model, tmp_path):
    spec = edgeq.inspect(model)
    assert (spec.n_layers, spec.hidden_size) == (1, 64)
    plan = edgeq.plan(model, device="rpi-5", min_tps=1.0)
    assert plan.request.context == 128 and plan.candidates
    checkpoint = edgeq.quantize(model, tmp_path / "out", bits=8)
    assert checkpoint.scheme.linear.bits == 8
    with pytest.raises(edgeq.EdgeqError, match="colour"):
        edgeq.quantize(model, tmp_path / "other", colour="red")
    with pytest.raises(edgeq.EdgeqError, match="exists already"):
        edgeq.quantize(model, tmp_path / "out")


def test_profile_of_a_catalog_device():
    assert edgeq.profile("rtx-4090").accelerators
    with pytest.raises(edgeq.EdgeqError):
        edgeq.profile("no-such-device")


def test_names_shared_with_packages_can_be_called_whatever_was_imported_first():
    for first in ("import edgeq.plan.plan, edgeq.quantize.engine", "import edgeq"):
        code = f"{first}\nimport edgeq\nassert callable(edgeq.plan) and callable(edgeq.quantize)\nedgeq.plan.Request"
        subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = edgeq.nothing
