"""A bare GGUF file is opened, measured and compared as an artifact is."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

import edgeq
from edgeq.artifact import read_artifact
from edgeq.checkpoint.open import open_weights
from edgeq.errors import EdgeqError
from edgeq.exporters.gguf import GgufExporter
from edgeq.measure.verify import verify
from edgeq.model.weights import open_source

pytest.importorskip("xllamacpp")


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEQ_HOME", str(tmp_path / "home"))


@pytest.fixture
def exported(saved, tmp_path):
    return GgufExporter().export(open_source(saved("llama")), tmp_path / "out")


@pytest.fixture
def bare(exported, tmp_path):
    """The file alone, away from its folder."""
    return (exported.path / "model.gguf").rename(tmp_path / "alone.gguf")


def test_it_runs_as_the_artifact_did(saved, tmp_path):
    exported = GgufExporter().export(open_source(saved("llama")), tmp_path / "out")
    with edgeq.load(exported.path, threads=1) as session:
        ids = session.tokenizer.encode("The quick")
        template = session.tokenizer.render([{"role": "user", "content": "Hi"}])
        logits = session.logits(ids)
    bare = (exported.path / "model.gguf").rename(tmp_path / "alone.gguf")
    with edgeq.load(bare, threads=1) as session:
        assert session.tokenizer.encode("The quick") == ids
        assert session.tokenizer.render([{"role": "user", "content": "Hi"}]) == template
        np.testing.assert_allclose(session.logits(ids), logits, atol=1e-5)
        assert session.generate("The quick", max_tokens=8)


def test_it_can_be_verified_against_its_own_numbers(bare):
    artifact = read_artifact(bare)
    assert artifact.runtime == "llamacpp" and artifact.scheme == "F32"
    assert artifact.total_bytes > bare.stat().st_size
    assert verify(artifact, checkpoint=open_weights(artifact.checkpoint)).verdict == "pass"


def test_it_is_described_once_and_again_when_it_changes(bare, tmp_path):
    first = read_artifact(bare)
    assert read_artifact(bare) == first
    os.utime(bare, ns=(1, 1))
    assert read_artifact(bare).path != first.path
    (read_artifact(bare).path / "edgeq.json").write_text("{")
    assert read_artifact(bare).model == first.model


def test_damaged_and_foreign_files_are_told(bare, tmp_path):
    whole = bare.read_bytes()
    for size in (0, 3, 500, len(whole) - 64):
        bare.write_bytes(whole[:size])
        with pytest.raises(EdgeqError):
            read_artifact(bare)
    other = tmp_path / "notes.txt"
    other.write_text(json.dumps({}))
    with pytest.raises(EdgeqError, match="no exporter knows files of this kind"):
        read_artifact(other)
    assert not list((tmp_path / "home").rglob("*.partial"))
