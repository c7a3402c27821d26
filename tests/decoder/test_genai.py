"""The exported folder in onnxruntime-genai: the same greedy tokens as the torch backend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeq.decoder.torch_model import TorchModel
from edgeq.registry import exporter

NAMES = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3-longrope", "smollm3", "olmo2", "granite")
NAMES += ("mixtral", "qwen3_moe", "qwen2_moe", "gpt_oss")
PROMPT, NEW = [5, 77, 31, 8, 120, 44, 9, 60, 13], 12


@pytest.mark.parametrize("name", NAMES)
def test_greedy_tokens_are_those_of_the_reference(tiny, tmp_path: Path, name):
    genai = pytest.importorskip("onnxruntime_genai")
    model = tiny(name)
    artifact = exporter("onnx").export(model.weights, tmp_path / "out")
    loaded = genai.Model(str(artifact.path))
    params = genai.GeneratorParams(loaded)
    params.set_search_options(do_sample=False, max_length=64, min_length=len(PROMPT) + NEW)
    generator = genai.Generator(loaded, params)
    generator.append_tokens(np.array(PROMPT, np.int32))
    for _ in range(NEW):
        generator.generate_next_token()
    assert list(generator.get_sequence(0)) == greedy(TorchModel(model.weights))


def greedy(model: TorchModel) -> list[int]:
    """EOS left out of the choice, as a minimum length does."""
    ids, cache = list(PROMPT), model.start()
    step = PROMPT
    for _ in range(NEW):
        logits = model.step(step, cache)[-1].copy()
        logits[list(model.spec.eos_ids)] = -np.inf
        step = [int(logits.argmax())]
        ids += step
    return ids
