"""SmolLM2-135M in int4 on OpenVINO: verified, and the same greedy answer as openvino-genai gives from the folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import edgeq
from edgeq.artifact import read_artifact
from edgeq.checkpoint.store import Checkpoint
from edgeq.decoder.torch_model import TorchModel
from edgeq.registry import exporter

pytestmark = pytest.mark.e2e

PROMPT = "The capital of France is"
NEW = 24


@pytest.fixture(scope="module")
def exported(demo: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's checkpoint through `edgeq export --to openvino`, nothing rounded at run time."""
    out = tmp_path_factory.mktemp("openvino") / "out"
    options = ["--kv-dtype", "f32", "--dynamic-quantization", "0", "--json"]
    line = [sys.executable, "-m", "edgeq", "export", demo.folder / "demo" / "checkpoint", "--to", "openvino", "-o", out]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([*line, *options], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verify"]["verdict"] == "pass"
    return out


def test_it_is_verified_as_exact_and_read_back(demo: Any, exported: Path) -> None:
    artifact = read_artifact(exported)
    assert artifact.verify["path"] == "float"
    assert artifact.verify["text"]["mean_kl"] < 1e-6
    checkpoint = Checkpoint.open(demo.folder / "demo" / "checkpoint")
    assert exporter("openvino").read_back(artifact, checkpoint) == []


def test_the_answer_is_the_checkpoint_s_and_openvino_genai_s(demo: Any, exported: Path) -> None:
    genai = pytest.importorskip("openvino_genai")
    model = TorchModel(Checkpoint.open(demo.folder / "demo" / "checkpoint"))
    with edgeq.load(exported) as session:
        ids = list(session.tokenizer.encode(PROMPT))
        ours = session.generate(PROMPT, max_tokens=NEW)
        expected = session.tokenizer.decode(greedy(model, ids, session.tokenizer.eos_id))
    assert "Paris" in ours and ours.strip() == expected.strip()
    exact = {"INFERENCE_PRECISION_HINT": "f32", "ATTENTION_BACKEND": "SDPA"}
    pipeline = genai.LLMPipeline(str(exported), "CPU", **exact)
    settings = genai.GenerationConfig(max_new_tokens=NEW, do_sample=False, apply_chat_template=False)
    settings.eos_token_id = pipeline.get_tokenizer().get_eos_token_id()
    assert str(pipeline.generate(PROMPT, settings)).strip() == ours.strip()


def greedy(model: TorchModel, ids: list[int], eos: int | None) -> list[int]:
    cache, step, found = model.start(), ids, []
    for _ in range(NEW):
        step = [int(model.step(step, cache)[-1].argmax())]
        if step[0] == eos:
            break
        found += step
    return found
