"""The exported file in llama.cpp's own eyes: its logits are those of edgeq's reference on the same weights."""

from __future__ import annotations

import numpy as np
import pytest

import edgeq
from edgeq.checkpoint.open import open_weights
from edgeq.decoder.torch_model import TorchModel
from edgeq.exporters.gguf import GgufExporter
from edgeq.measure.divergence import DivergenceMeter
from edgeq.measure.verify import FLOAT_LIMITS, INT8_LIMITS, verify
from edgeq.model.weights import open_source
from edgeq.quantize.engine import quantize
from edgeq.recipe import Recipe

pytest.importorskip("xllamacpp")

NAMES = ("llama", "llama-llama3-rope", "llama-linear-rope", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3")
NAMES += ("phi3-longrope", "olmo2", "granite", "smollm3")
NAMES += ("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "gpt_oss", "gpt_oss-yarn", "granitemoe")
IDS = np.random.default_rng(1).integers(5, 380, 40).tolist()  # well past the window of 8


@pytest.mark.parametrize("name", NAMES)
def test_llama_cpp_computes_what_the_reference_does(saved, tmp_path, name):
    """Float weights, so that llama.cpp does not round activations to 8 bits; its processor's kernels round some inputs
    to half precision. A wrong scale or pairing shows as 1 nat and more.

    LongRoPE: llama.cpp takes the long factors where its context needs them, whatever the length of the sequence; the
    reference does so because the whole of these tokens does.
    """
    source = open_source(saved(name))
    artifact = GgufExporter().export(source, tmp_path / "out")
    reference = TorchModel(source).logits(IDS)
    with edgeq.load(artifact.path, context=64, threads=1, kv_dtype="f32") as session:
        found = session.logits(IDS)
        assert found.dtype == np.float32 and found.shape == reference.shape
        meter = DivergenceMeter()
        meter.add(reference, found)
        assert meter.result().mean_kl < FLOAT_LIMITS.mean_kl
        assert np.abs(found - reference).max() < 0.02 * np.abs(reference).max()
        session.engine.rewind(20)
        steps = [session.engine.decode(token).copy() for token in IDS[20:]]
        np.testing.assert_allclose(steps, found[20:], atol=0.02 * np.abs(reference).max())


@pytest.mark.parametrize("grid", ["q4_1", "q8_0", "affine"])
def test_quantized_blocks_pass_a_verification_within_the_limits_of_8_bit_activations(saved, tmp_path, grid):
    recipe = Recipe(str(saved("qwen2")), grid=grid, group_size=32, embed_grid="q8_0")
    checkpoint = quantize(open_source(saved("qwen2")), recipe, tmp_path / "q")
    artifact = GgufExporter().export(checkpoint, tmp_path / "out")
    found = verify(artifact, checkpoint=open_weights(checkpoint.path))
    assert found.verdict == "pass", found.reasons
    assert found.path == "int8" and found.limits == INT8_LIMITS
    assert found.steps is not None and found.text is not None
    assert found.text.mean_kl > 0


def test_greedy_answers_are_the_reference_s(saved, tmp_path):
    artifact = GgufExporter().export(open_source(saved("llama")), tmp_path / "out")
    with edgeq.load(artifact.path, threads=1) as fast, edgeq.load(artifact.path, runtime="torch") as reference:
        for prompt in ("The quick", "def f(x):", "Le café"):
            assert fast.generate(prompt, max_tokens=16) == reference.generate(prompt, max_tokens=16)
