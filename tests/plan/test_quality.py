from __future__ import annotations

import pytest

from edgeq.model.read import read_model
from edgeq.plan.candidates import schemes
from edgeq.plan.quality import expected_quality
from edgeq.scheme import named_scheme


def kld(model, scheme):
    return expected_quality(read_model(model), named_scheme(scheme)).kld


def test_published_figures_are_given_as_published():
    """llama.cpp's README, Llama-3-8B."""
    for scheme, value in (("gguf-q8_0", 0.0014), ("gguf-q4_k_m", 0.0313), ("gguf-q2_k", 0.445)):
        quality = expected_quality(read_model("llama-3.1-8b"), named_scheme(scheme))
        assert quality.kld == pytest.approx(value, rel=0.02)
        assert quality.kind == "published" and "llama.cpp" in quality.source


@pytest.mark.parametrize(
    ("scheme", "measured"),
    [
        ("gguf-q8_0", 0.0043),
        ("gguf-q6_k", 0.0077),
        ("gguf-q5_k_m", 0.0173),
        ("gguf-q4_k_m", 0.0443),
        ("gguf-q4_k_s", 0.0583),
        ("gguf-q4_1", 0.0565),
        ("gguf-q3_k_m", 0.1050),
        ("gguf-q4_0", 0.2147),
    ],
)
def test_a_small_model_within_a_factor_of_two_and_a_half(scheme, measured):
    """SmolLM2-135M through llama.cpp with an importance matrix: far from 8B, so a hard test of the size rule."""
    ratio = kld("smollm2-135m", scheme) / measured
    assert 0.4 < ratio < 2.5


def test_better_methods_and_more_bits_lose_less():
    for better, worse in (
        ("gptq-int4-g128", "rtn-int4-g128"),
        ("awq-int4-g128", "rtn-int4-g128"),
        ("autoround-int4-g128", "awq-int4-g128"),
        ("awq+gptq-int4-g128", "gptq-int4-g128"),
        ("rtn-int8-g32", "gptq-int4-g32"),
        ("gptq-int4-g32", "gptq-int4-g128"),
        ("gptq-int4-g128", "gptq-int3-g128"),
        ("gptq-int4-g128", "gptq-int4-g128-sym"),
    ):
        assert kld("8B", better) < kld("8B", worse)


def test_larger_models_lose_less():
    assert kld("70B", "rtn-int4-g32") < kld("8B", "rtn-int4-g32") < kld("0.5B", "rtn-int4-g32")


def test_interpolations_say_so_and_every_scheme_has_a_source():
    for scheme in schemes():
        quality = expected_quality(read_model("8B"), scheme)
        assert quality.source and quality.words
        assert quality.kind != "published" or scheme.linear.kind == "gguf" or scheme.linear.group_size in {128, 32}
    assert expected_quality(read_model("8B"), named_scheme("gptq-int4-g32")).kind == "interpolated"
    assert expected_quality(read_model("8B"), named_scheme("fp16")).kld == 0
