"""Size classes and well-known models: published counts, found by any of their names, without a network."""

from __future__ import annotations

import subprocess
import sys

import pytest

from edgeq.errors import EdgeqError
from edgeq.model import active_parameters, known_models, parameters, read_model, size_classes
from edgeq.model.catalog import _table

# From the model cards and papers: billions of parameters, and those active for a token.
PUBLISHED = {
    "0.5B": 0.494,
    "1B": 1.23,
    "3B": 3.21,
    "7B": 7.61,
    "8B": 8.03,
    "13B": 13.0,
    "14B": 14.8,
    "32B": 32.8,
    "70B": 70.6,
}
PUBLISHED_MOE = {
    "30B-A3B": (30.5, 3.3),
    "8x7B": (46.7, 12.9),
    "20B-A3.6B": (20.9, 3.6),
    "120B-A5B": (117, 5.1),
    "235B-A22B": (235, 22),
    "671B-A37B": (671, 37),
}


@pytest.mark.parametrize("size", PUBLISHED)
def test_dense_classes(size):
    spec = read_model(size)
    assert parameters(spec) / 1e9 == pytest.approx(PUBLISHED[size], rel=0.006)
    assert active_parameters(spec) == parameters(spec)
    assert spec.origin == "class" and spec.source.startswith("https://huggingface.co/") and not spec.estimated


@pytest.mark.parametrize("size", PUBLISHED_MOE)
def test_moe_classes(size):
    spec = read_model(size.lower())
    total, active = PUBLISHED_MOE[size]
    assert parameters(spec) / 1e9 == pytest.approx(total, rel=0.006)
    table = spec.vocab_size * spec.hidden_size  # some cards leave the embedding out of the active count
    used = active_parameters(spec)
    assert min(abs(used - table - active * 1e9), abs(used - active * 1e9)) / 1e9 < 0.06 * active


@pytest.mark.parametrize("model", known_models(), ids=lambda m: m.name)
def test_exact_count_of_every_known_model(model):
    assert parameters(read_model(model.name)) == _table()["models"][model.name]["parameters"]


def test_every_name_finds_its_model():
    models = known_models()
    assert len(models) >= 40 and len({m.name for m in models}) == len(models)
    assert set(size_classes().values()) <= {m.name for m in models}
    assert read_model("7b").layers == read_model("qwen2.5-7b").layers == read_model(" Qwen2.5-7B ").layers
    assert [m.classes for m in models if m.name == "llama-3.1-8b"] == [("8B",)]


def test_known_hub_ids_answer_offline(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    spec = read_model("Qwen/Qwen3-8B", offline=True)
    assert parameters(spec) == 8190735360 and spec.name == "Qwen/Qwen3-8B"
    with pytest.raises(EdgeqError, match="not in the local cache"):
        read_model("nobody/nothing", offline=True)


def test_a_typo_is_answered_with_what_is_near():
    with pytest.raises(EdgeqError, match=r"Did you mean llama-3\.1-8b"):
        read_model("llama3.1-8b")


def test_planning_imports_nothing_heavy():
    code = (
        "import sys; from edgeq.model import read_model; read_model('7B');"
        "heavy = {'numpy', 'torch', 'transformers', 'huggingface_hub', 'tokenizers', 'rich'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
