"""SmolLM2-135M in ONNX's other forms (standard operators, float16, .ort): verified, read back, and the same answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import edgeq
from edgeq.artifact import read_artifact
from edgeq.checkpoint.open import open_weights
from edgeq.estimate.onnx_file import onnx_data_bytes
from edgeq.measure.verify import verify
from edgeq.registry import exporter

pytestmark = pytest.mark.e2e


def test_the_standard_dialect_says_what_the_contrib_one_says(demo: Any, tmp_path: Path) -> None:
    weights = open_weights(str(demo.folder / "demo" / "checkpoint"))
    chosen: Any = exporter("onnx")
    artifact = chosen.export(weights, tmp_path / "standard", dialect="standard")
    assert verify(artifact, checkpoint=weights, tokens=256).verdict == "pass"
    assert chosen.read_back(artifact, weights) == []
    size = (artifact.path / "model.onnx.data").stat().st_size
    assert size == onnx_data_bytes(weights.spec, weights.scheme, dialect="standard")
    said = []  # a dozen tokens: inputs rounded to 8 bits let close ones fall either way on some processors
    for folder in (artifact.path, demo.folder / "demo" / "artifact"):
        with edgeq.load(folder) as session:
            said.append(session.generate("The capital of France is", max_tokens=12, temperature=0.0))
    assert said[0] == said[1] and said[0].lstrip().startswith("Paris")


def test_half_precision_and_one_file_say_it_too(demo: Any, tmp_path: Path) -> None:
    weights = open_weights(str(demo.folder / "demo" / "checkpoint"))
    chosen: Any = exporter("onnx")
    for name, options in (("half", {"dtype": "float16"}), ("file", {"format": "ort"})):
        artifact = chosen.export(weights, tmp_path / name, **options)
        found = verify(artifact, checkpoint=weights, tokens=256)
        assert found.verdict == "pass" and found.text is not None and found.text.mean_kl < 0.02
        with edgeq.load(artifact.path) as session:
            said = session.generate("The capital of France is", max_tokens=24, temperature=0.0)
        assert said.lstrip().startswith("Paris")
    size = (tmp_path / "half" / "model.onnx.data").stat().st_size
    assert size == onnx_data_bytes(weights.spec, weights.scheme, half=True)
    assert chosen.read_back(read_artifact(tmp_path / "half"), weights) == []
