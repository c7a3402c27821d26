"""What an app does with the demo's artifact: onnxruntime alone, or onnxruntime-genai."""

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

ROOT = Path(__file__).resolve().parents[2]
PROMPT = "The capital of France is"
APP = """
import json, sys, time
start = time.perf_counter()
import edgeq
session = edgeq.load(sys.argv[1])
loaded = time.perf_counter() - start
text = session.generate(sys.argv[2], max_tokens=24)
heavy = [m for m in ("torch", "transformers", "onnx", "safetensors", "gguf", "rich", "typer") if m in sys.modules]
print(json.dumps({"loaded": loaded, "text": text, "heavy": heavy}))
"""


def test_onnxruntime_genai_gives_the_same_greedy_tokens(demo: Any) -> None:
    import onnxruntime_genai as genai

    folder = demo.folder / "demo" / "artifact"
    with edgeq.load(folder) as session:
        ids = list(session.tokenizer.encode(PROMPT))
        ours = list(session.tokenizer.encode(PROMPT + session.generate(PROMPT, max_tokens=24)))
    model = genai.Model(str(folder))
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(max_length=len(ids) + 24, do_sample=False)
    generator = genai.Generator(model, parameters)
    generator.append_tokens(ids)
    while not generator.is_done():
        generator.generate_next_token()
    theirs = [int(t) for t in generator.get_sequence(0)]
    assert "Paris" in genai.Tokenizer(model).decode(theirs)
    assert theirs[: len(ours)] == ours[: len(theirs)]
    assert len(ours) > len(ids) + 8


def test_the_runtime_extra_alone_loads_and_generates(demo: Any, tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    install = [python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", f"{ROOT}[onnxruntime]"]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    packages = subprocess.run([python, "-m", "pip", "list"], capture_output=True, text=True, check=True).stdout
    assert not {"torch", "transformers", "onnx"} & {line.split()[0] for line in packages.splitlines()}
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    line = [python, "-c", APP, demo.folder / "demo" / "artifact", PROMPT]
    ran = subprocess.run(line, cwd=tmp_path, env=clean, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    assert said["heavy"] == []
    assert said["text"] == demo.report.answer
