"""The exported folder in openvino-genai's LLMPipeline: the same greedy tokens as the torch backend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeq.decoder.torch_model import TorchModel
from edgeq.registry import exporter

genai = pytest.importorskip("openvino_genai")
PROMPT, NEW = [5, 77, 31, 8, 120, 44, 9, 60, 13], 12  # longer than the windows
EXACT = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("mistral", "SDPA"),
        ("mistral", "PA"),
        ("gemma2", ""),  # its soft cap is no attention that could be paged, so the pipeline's own choice is SDPA
        ("gemma3_text", "PA"),
        ("phi3-longrope", "SDPA"),
        ("smollm3", "PA"),
    ],
)
def test_greedy_tokens_are_those_of_the_reference(tiny, tmp_path: Path, name: str, backend: str) -> None:
    import openvino as ov

    model = tiny(name)
    artifact = exporter("openvino").export(model.weights, tmp_path / "out", kv_dtype="f32", dynamic_quantization=0)
    chosen = {"ATTENTION_BACKEND": backend} if backend else {}
    pipeline = genai.LLMPipeline(str(artifact.path), "CPU", **EXACT, **chosen)
    settings = genai.GenerationConfig(max_new_tokens=NEW, ignore_eos=True, do_sample=False)
    found = pipeline.generate(ov.Tensor(np.array([PROMPT], np.int64)), settings)
    assert list(found.tokens[0]) == greedy(TorchModel(model.weights))


def greedy(model: TorchModel) -> list[int]:
    """EOS is as good as any other token."""
    ids: list[int] = []
    cache, step = model.start(), PROMPT
    for _ in range(NEW):
        step = [int(model.step(step, cache)[-1].argmax())]
        ids += step
    return ids
