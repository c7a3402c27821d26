"""Rotary tables against transformers' own, with the settings of published models."""

from __future__ import annotations

import numpy as np
import pytest

from edgeq.decoder.rope import frequencies, switch_length, tables
from edgeq.errors import EdgeqError
from edgeq.model.spec import Rope

# kind, theta, rotated dims of a head of 128, longest, trained length, parameters
LLAMA_31 = ("llama3", 5e5, 128, 131072, 8192, {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0})
QWEN_YARN = ("yarn", 1e6, 128, 131072, 32768, {"factor": 4.0})
YARN_MSCALE = ("yarn", 1e4, 64, 163840, 4096, {"factor": 40.0, "mscale": 1.0, "mscale_all_dim": 0.8, "beta_fast": 24.0})
YARN_SMOOTH = ("yarn", 1e4, 128, 131072, 4096, {"factor": 32.0, "truncate": False})
LINEAR = ("linear", 1e6, 128, 131072, None, {"factor": 8.0})
DYNAMIC = ("dynamic", 1e4, 128, 4096, None, {"factor": 4.0})
LONG = {"short_factor": [1 + 0.01 * i for i in range(48)], "long_factor": [1 + 1.3 * i for i in range(48)]}
PHI4_MINI = ("longrope", 1e4, 96, 131072, 4096, LONG)


def theirs(kind, theta, dim, longest, trained, params, length):
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = {"rope_type": kind, "rope_theta": theta, "partial_rotary_factor": dim / 128, **params}
    if trained:
        rope["original_max_position_embeddings"] = trained
    config = LlamaConfig(hidden_size=512, num_attention_heads=4, max_position_embeddings=longest, rope_parameters=rope)
    inverse, factor = ROPE_INIT_FUNCTIONS[kind](config, "cpu", seq_len=length)
    return inverse.numpy(), factor


def ours(kind, theta, dim, longest, trained, params) -> Rope:
    values = ((k, tuple(v) if isinstance(v, list) else float(v)) for k, v in params.items())
    return Rope(theta, dim, kind, tuple(sorted(values)), trained)


@pytest.mark.parametrize("case", [LLAMA_31, QWEN_YARN, YARN_MSCALE, YARN_SMOOTH, LINEAR, DYNAMIC, PHI4_MINI])
@pytest.mark.parametrize("length", [None, 3000, 9000])
def test_frequencies_are_those_of_transformers(case, length):
    found = frequencies(ours(*case), case[3], length)
    inverse, factor = theirs(*case, length)
    np.testing.assert_allclose(found.inverse, inverse, rtol=2e-6)
    assert found.attention_factor == pytest.approx(factor, rel=1e-6)


def test_tables_turn_by_position_times_frequency():
    freqs = frequencies(Rope(1e4, 8), 64)
    cos, sin = tables(freqs, np.array([0, 3]))
    angles = 3 * 10000.0 ** (-np.arange(0, 8, 2) / 8)
    np.testing.assert_allclose(cos, [np.ones(4), np.cos(angles)], atol=1e-6)
    np.testing.assert_allclose(sin, [np.zeros(4), np.sin(angles)], atol=1e-6)


def test_only_longrope_and_dynamic_change_with_the_length():
    found = {case[0]: switch_length(ours(*case), case[3]) for case in (LLAMA_31, QWEN_YARN, LINEAR, DYNAMIC, PHI4_MINI)}
    assert found == {"llama3": None, "yarn": None, "linear": None, "dynamic": 4096, "longrope": 4096}


@pytest.mark.parametrize(
    "rope",
    [
        Rope(1e4, 8, "linear"),
        Rope(1e4, 8, "longrope", (("long_factor", (1.0,)), ("short_factor", (1.0,)))),
        Rope(1e4, 8, "llama3", (("factor", (8.0, 2.0)),)),
    ],
)
def test_unusable_parameters_are_an_edgeq_error(rope):
    with pytest.raises(EdgeqError, match="rope parameters"):
        frequencies(rope, 64)
