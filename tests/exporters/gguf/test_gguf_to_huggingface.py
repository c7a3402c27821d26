"""A GGUF file, converted and exported as a Hugging Face folder: transformers computes what the original did."""

from __future__ import annotations

import numpy as np
import pytest

from edgeq.conversion import convert
from edgeq.decoder.torch_model import TorchModel
from edgeq.model.weights import open_source
from edgeq.registry import exporter

IDS = np.random.default_rng(7).integers(3, 500, 24).tolist()


@pytest.mark.parametrize("name", ["llama-llama3-rope", "gemma3", "phi3-longrope"])
def test_what_the_file_says_in_other_words_is_said_back(saved, tmp_path, name):
    """Llama 3's scaling is a list of factors there, Gemma's norms have their one added, Phi-3's factor is not told."""
    import torch
    from transformers import AutoModelForCausalLM

    source = open_source(saved(name))
    file = exporter("gguf").export(source, tmp_path / "gguf").path / "model.gguf"
    checkpoint = convert(file, tmp_path / "checkpoint")
    artifact = exporter("compressed-tensors").export(checkpoint, tmp_path / "out")
    assert exporter("compressed-tensors").read_back(artifact, checkpoint) == []
    model = AutoModelForCausalLM.from_pretrained(artifact.path, dtype=torch.float32, attn_implementation="eager")
    with torch.inference_mode():
        logits = model.eval()(torch.tensor([IDS]), use_cache=False).logits[0].numpy()
    np.testing.assert_allclose(logits, TorchModel(source).logits(IDS), atol=1e-4, rtol=0)
