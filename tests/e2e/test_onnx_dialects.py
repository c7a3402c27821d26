"""SmolLM2-135M in ONNX's standard operators: verified, read back, and the same answer as on onnxruntime's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import edgeq
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
    said = []
    for folder in (artifact.path, demo.folder / "demo" / "artifact"):
        with edgeq.load(folder) as session:
            said.append(session.generate("The capital of France is", max_tokens=24, temperature=0.0))
    assert said[0] == said[1] and said[0].lstrip().startswith("Paris")
