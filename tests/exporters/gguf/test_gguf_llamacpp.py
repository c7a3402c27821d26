"""The exported file in llama.cpp's own eyes: its logits are those of edgeq's reference on the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.decoder.torch_model import TorchModel
from edgeq.exporters.gguf import GgufExporter
from edgeq.model.weights import open_source

llama = pytest.importorskip("xllamacpp")

NAMES = ("llama", "llama-llama3-rope", "llama-linear-rope", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3")
NAMES += ("phi3-longrope", "olmo2", "granite", "smollm3")
NAMES += ("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "gpt_oss", "gpt_oss-yarn", "granitemoe")
LENGTHS = (1, 2, 5, 9, 10, 17, 25, 40)  # within and past the window of 8
LOGIT_ERROR = 0.02  # llama.cpp's CPU kernels round some inputs to half precision; a wrong scale or pairing shows 1 to 5


@pytest.mark.parametrize("name", NAMES)
def test_llama_cpp_computes_what_the_reference_does(saved, tmp_path, name):
    """Float weights, so that llama.cpp does not round activations to 8 bits; prompts of several lengths."""
    source = open_source(saved(name))
    file = GgufExporter().export(source, tmp_path / "out").path / "model.gguf"
    server = _server(file)
    ids = np.random.default_rng(1).integers(5, 380, max(LENGTHS)).tolist()
    # LongRoPE: llama.cpp takes the long factors where its context needs them, whatever the length of the sequence; the
    # reference does so because the whole of these tokens does.
    reference = _log_probabilities(TorchModel(source).logits(ids))
    compared = 0
    for length in LENGTHS:
        asked = {"prompt": ids[:length], "max_tokens": 1, "temperature": 0, "n_probs": 8, "cache_prompt": False}
        choice = server.handle_completions(asked)["choices"][0]
        if not (choice["logprobs"] or {}).get("content"):
            continue  # half of a character: the server withholds it
        found = choice["logprobs"]["content"][0]
        row = reference[length - 1]
        assert row.max() - row[found["id"]] < LOGIT_ERROR
        for entry in found["top_logprobs"]:
            assert abs(entry["logprob"] - row[entry["id"]]) < LOGIT_ERROR
        compared += 1
    assert compared >= 2


def _server(file: Path) -> Any:
    params = llama.CommonParams()
    params.model.path = str(file)
    params.n_ctx, params.n_parallel, params.warmup = 64, 1, False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.cache_type_k = params.cache_type_v = llama.ggml_type.GGML_TYPE_F32
    return llama.Server(params)


def _log_probabilities(logits: Any) -> Any:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
