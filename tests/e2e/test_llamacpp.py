"""A GGUF of the demo model: made, verified, run and measured by the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import edgeq

pytestmark = pytest.mark.e2e
pytest.importorskip("xllamacpp")

PROMPT = "The capital of France is"


@pytest.fixture(scope="module", params=["q8_0", "gguf-q4_1"])
def made(request: Any, demo: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("gguf")
    recipe = json.loads((demo.folder / "demo" / "checkpoint" / "manifest.json").read_text())["recipe"]
    source = demo.folder / recipe["model"]
    line(demo, place, "quantize", str(source), "--method", "rtn", "--grid", request.param, "-o", "q")
    line(demo, place, "export", "q", "--to", "gguf")
    return place


def line(demo: Any, place: Path, *arguments: str) -> str:
    environment = {**demo.environment, "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-m", "edgeq", *arguments]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_verified_and_answers_as_the_reference(made: Path) -> None:
    verdict = json.loads((made / "q-gguf" / "edgeq.json").read_text())["verify"]
    assert verdict["verdict"] == "pass" and verdict["path"] == "int8"
    with edgeq.load(made / "q-gguf") as fast, edgeq.load(made / "q-gguf", runtime="torch") as reference:
        said = fast.generate(PROMPT, max_tokens=4)  # later ones hang on how llama.cpp rounds activations
        assert "Paris" in said and said == reference.generate(PROMPT, max_tokens=4)


def test_it_is_measured_and_then_chosen_for_its_checkpoint(demo: Any, made: Path) -> None:
    short = ("--prompt-tokens", "16", "--tokens", "8", "--reps", "1", "--json")
    found = json.loads(line(demo, made, "bench", "q-gguf", *short))
    assert found["target"] == "llamacpp/cpu" and dict(found["versions"]).keys() == {"edgeq", "xllamacpp"}
    done = subprocess.run(
        [sys.executable, "-m", "edgeq", "run", "q", PROMPT, "--raw", "--max-tokens", "8"],
        cwd=made,
        env={**os.environ, **demo.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Paris" in done.stdout and "opening" in done.stderr and "q-gguf (llamacpp, " in done.stderr
