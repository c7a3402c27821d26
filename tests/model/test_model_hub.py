"""Hub ids: what each answer of the hub becomes. The hub itself is replaced; no network."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import huggingface_hub
import pytest
from huggingface_hub import errors as hub

from edgeq.errors import EdgeqError
from edgeq.model import hub as ours
from edgeq.model import parameters, read_model

CONFIG = {"model_type": "llama", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 10}
CONFIG |= {"intermediate_size": 8, "tie_word_embeddings": True}
SHAPES = {
    "model.embed_tokens.weight": (10, 16),
    "model.norm.weight": (16,),
    **{f"model.layers.0.self_attn.{n}_proj.weight": (16, 16) for n in "qkvo"},
    **{f"model.layers.0.mlp.{n}_proj.weight": (8, 16) for n in ("gate", "up")},
    "model.layers.0.mlp.down_proj.weight": (16, 8),
    **{f"model.layers.0.{n}_layernorm.weight": (16,) for n in ("input", "post_attention")},
}


@pytest.fixture
def fake_hub(monkeypatch, tmp_path):
    """A hub with `org/tiny`; returns its files and tensor shapes, to be changed by the test."""
    state = SimpleNamespace(files={"config.json": json.dumps(CONFIG)}, shapes=dict(SHAPES), error=None, asked=[])

    def download(ref: str, name: str, *, revision: Any, local_files_only: bool, **_: Any) -> str:
        state.asked.append((ref, name, revision, local_files_only))
        if state.error is not None:
            raise state.error
        if name not in state.files:
            raise _failed(hub.EntryNotFoundError)
        (tmp_path / name).write_text(state.files[name])
        return str(tmp_path / name)

    def metadata(ref: str, **_: Any) -> Any:
        tensors = {n: SimpleNamespace(dtype="BF16", shape=list(s)) for n, s in state.shapes.items()}
        return SimpleNamespace(files_metadata={"model.safetensors": SimpleNamespace(tensors=tensors)})

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub, "get_safetensors_metadata", metadata)
    monkeypatch.setattr(ours, "reachable", lambda: True)
    return state


def _failed(kind: Any) -> Exception:
    """An error as the hub's client raises it; those of HTTP carry the response."""
    made: Exception = kind("no", response=MagicMock()) if issubclass(kind, hub.HfHubHTTPError) else kind("no")
    return made


def test_config_and_headers_make_the_spec(fake_hub):
    fake_hub.files["generation_config.json"] = '{"eos_token_id": [3, 4]}'
    spec = read_model("org/tiny", revision="v2")
    assert parameters(spec) == 10 * 16 + 3 * 16 + 4 * 256 + 3 * 128
    assert (spec.origin, spec.location, spec.eos_ids, spec.source_dtype) == ("hub", "org/tiny", (3, 4), "bf16")
    assert {(name, revision) for _, name, revision, _ in fake_hub.asked} >= {("config.json", "v2")}


def test_headers_that_contradict_the_config(fake_hub):
    fake_hub.shapes["model.norm.weight"] = (17,)
    with pytest.raises(EdgeqError, match=r"model\.norm\.weight.*\[16\].*\[17\]"):
        read_model("org/tiny")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (hub.GatedRepoError, "org/tiny is gated.*hf auth login"),
        (hub.RepositoryNotFoundError, "the hub has no model org/tiny"),
        (hub.RevisionNotFoundError, "no revision"),
        (hub.LocalEntryNotFoundError, "the hub can't be reached for org/tiny"),
        (hub.HfHubHTTPError, "the hub can't be reached for org/tiny"),
        (ours.transport_error(), "the hub can't be reached for org/tiny"),
        (hub.OfflineModeIsEnabled, "the hub can't be reached for org/tiny"),
        (OSError, "the hub can't be reached for org/tiny"),
    ],
)
def test_what_the_hub_says_becomes_one_line(fake_hub, kind, message):
    fake_hub.error = _failed(kind)
    with pytest.raises(EdgeqError, match=message) as caught:
        read_model("org/tiny")
    assert "\n" not in caught.value.line


def test_a_repository_without_config(fake_hub):
    fake_hub.files.clear()
    with pytest.raises(EdgeqError, match=r"has no config\.json"):
        read_model("org/tiny")


def test_offline_asks_only_the_cache(fake_hub):
    assert read_model("org/tiny", offline=True).origin == "hub"
    assert all(cached for *_, cached in fake_hub.asked)


def test_a_known_model_answers_when_the_hub_does_not(fake_hub):
    fake_hub.error = _failed(ours.transport_error())
    assert parameters(read_model("Qwen/Qwen3-0.6B")) == 596049920
    with pytest.raises(EdgeqError):
        read_model("Qwen/Qwen3-0.6B", revision="other")
