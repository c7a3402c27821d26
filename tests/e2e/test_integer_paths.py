"""SmolLM2-135M in integers all through: 8-bit activations, and KV caches in 8 and 4 bits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import edgeq
from edgeq.artifact import read_artifact
from edgeq.model.texts import built_in_texts

pytestmark = pytest.mark.e2e

PROMPT = "The capital of France is"


def run(demo: Any, *arguments: object) -> None:
    line = [sys.executable, "-m", "edgeq", *map(str, arguments)]
    done = subprocess.run(line, env=demo.environment, capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr


def test_8_bit_activations(demo: Any, tmp_path: Path) -> None:
    """Static ones: dynamic ones take the same minutes, and their graphs are the unit tests'."""
    (tmp_path / "text").write_text("\n\n".join(built_in_texts()))
    text = ("--calibration", tmp_path / "text", "--calibration-tokens", 512)
    source = next((demo.folder / "home" / "cache" / "demo").glob("*.gguf"))
    checkpoint, out = tmp_path / "checkpoint", tmp_path / "artifact"
    run(demo, "quantize", source, "-o", checkpoint, "--method", "smoothquant", "--activations", "static", *text)
    run(demo, "export", checkpoint, "-o", out, "--read-back")
    artifact = read_artifact(out)
    assert artifact.options["activations"] == "static"
    assert artifact.verify["verdict"] == "pass" and artifact.verify["text"]["mean_kl"] < 0.03
    with edgeq.load(out) as session:
        assert "Paris" in session.generate(PROMPT, max_tokens=24)


@pytest.mark.parametrize(("dtype", "nats"), [("int8", 0.02), ("int4", 0.6)])
def test_integer_caches(demo: Any, tmp_path: Path, dtype: str, nats: float) -> None:
    out = tmp_path / "artifact"
    run(demo, "export", demo.folder / "demo" / "checkpoint", "-o", out, "--kv-dtype", dtype)
    artifact = read_artifact(out)
    assert artifact.verify["verdict"] == "pass" and artifact.verify["text"]["mean_kl"] < nats
    with edgeq.load(out) as session:
        full = read_artifact(demo.folder / "demo" / "artifact")
        assert full.options["kv_dtype"] == "f32"
        assert dtype == "int4" or "Paris" in session.generate(PROMPT, max_tokens=24)
        values = 2 * artifact.model["layers"] * artifact.model["kv_heads"] * artifact.model["head_dim"]
        session.reset()
        assert session.engine.cache_bytes % (values * int(dtype[3:]) // 8) == 0
