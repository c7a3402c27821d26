"""Configs from anywhere: a clear error in one line, or a spec; never anything else."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.errors import EdgeqError
from edgeq.model import read_model
from edgeq.model.config import read_config
from edgeq.model.spec import ModelSpec
from edgeq.model.tensors import parameters

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "eos_token_id": [2, 3],
}
PHI = {**LLAMA, "model_type": "phi3", "rope_scaling": {"type": "su", "short_factor": [1.0] * 8, "long_factor": [2] * 8}}
GEMMA = {**LLAMA, "model_type": "gemma3_text", "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
MOE = {**LLAMA, "model_type": "qwen3_moe", "num_experts": 4, "num_experts_per_tok": 2, "mlp_only_layers": [0]}
DEEPSEEK = {**LLAMA, "model_type": "deepseek_v3", "rope_scaling": {"type": "yarn", "factor": 40.0, "mscale_all_dim": 1}}
HYBRID = {**MOE, "model_type": "qwen3_next", "layer_types": ["linear_attention", "full_attention"]}
GRANITE = {**LLAMA, "model_type": "granitemoehybrid", "mamba_n_heads": 4, "rope_scaling": None}
SMOLLM3 = {**LLAMA, "model_type": "smollm3", "no_rope_layers": [1, 0]}
MAMBA = {"model_type": "mamba2", "hidden_size": 32, "num_hidden_layers": 2, "num_heads": 4, "head_dim": 16}
WRAPPED = {"model_type": "gemma3", "text_config": GEMMA, "vision_config": {}}
ALL = [LLAMA, PHI, GEMMA, MOE, DEEPSEEK, HYBRID, GRANITE, SMOLLM3, MAMBA, WRAPPED]


@pytest.mark.parametrize("config", ALL, ids=lambda c: c["model_type"])
def test_the_starting_points_are_valid(config):
    assert parameters(read_config(config, name="x")) > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"hidden_size": -64}, "hidden_size is -64"),
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"hidden_size": 10**400}, "hidden_size is 1000"),
        ({"hidden_size": "64"}, "hidden_size is '64'"),
        ({"hidden_size": True}, "hidden_size is True"),
        ({"hidden_size": 66}, "hidden_size is 66, expected a multiple of num_attention_heads"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000"),
        ({"num_key_value_heads": 3}, "num_key_value_heads is 3, expected a divisor"),
        ({"head_dim": 7}, "head width is 7"),
        ({"vocab_size": [1]}, "vocab_size is"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan"),
        ({"rms_norm_eps": -1}, "rms_norm_eps is -1"),
        ({"hidden_act": "sin"}, "hidden_act is 'sin'"),
        ({"rope_scaling": {"rope_type": "spiral"}}, "rope_scaling.rope_type is 'spiral'"),
        ({"rope_scaling": {"rope_type": "linear"}}, "rope_scaling.factor is missing"),
        ({"rope_scaling": [1]}, "rope_scaling should be an object"),
        ({"rope_theta": 0, "rope_scaling": None}, "rope_theta is 0"),
        ({"layer_types": ["full_attention"]}, "layer_types is"),
        ({"layer_types": ["full_attention", "telepathy"]}, "unknown layer type 'telepathy'"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes'"),
        ({"model_type": "nope"}, "unknown architecture 'nope'"),
        ({"model_type": None}, "model_type is missing"),
        ({"model_type": 3}, "model_type is 3"),
        ({"eos_token_id": {"a": 1}}, "eos_token_id is"),
        ({"attention_bias": 1}, "attention_bias is 1"),
    ],
)
def test_a_wrong_field_is_named(change, message):
    with pytest.raises(EdgeqError) as caught:
        read_config({**LLAMA, **change}, name="x", where="config.json")
    assert message in caught.value.line and "(config.json)" in caught.value.line
    assert len(caught.value.line) < 400 and "\n" not in caught.value.line


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"a": NaN', "[" * 100_000, '{"model_type": "llama"', "\x00", "9" * 5000]
)
def test_a_file_that_is_no_config(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(EdgeqError):
        read_model(str(tmp_path))


def test_deep_nesting_is_one_line(tmp_path):
    (tmp_path / "config.json").write_text('{"a":' * 50_000 + "1" + "}" * 50_000)
    with pytest.raises(EdgeqError, match="nested too deeply"):
        read_model(str(tmp_path))


def test_missing_things(tmp_path):
    with pytest.raises(EdgeqError, match=r"no config\.json"):
        read_model(str(tmp_path))
    (tmp_path / "m.gguf").write_bytes(b"")
    with pytest.raises(EdgeqError, match=r"Did you mean .*m\.gguf"):
        read_model(str(tmp_path))
    for ref in ("./nowhere", "a/b/c/d", "x.gguf", "", "7Bx", "a\x00b", "x" * 5000):
        with pytest.raises(EdgeqError):
            read_model(ref, offline=True)


_JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 130),
    st.sampled_from([2**31, 2**63, 10**40, -(2**70)]),
    st.floats(),
    st.sampled_from([math.nan, math.inf, 1e308, -0.0, 0.5, 1e-320]),
    st.text(max_size=6),
    st.lists(st.one_of(st.integers(-2, 9), st.floats(), st.text(max_size=3), st.none()), max_size=9),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)
_NAMES = [
    *sorted({k for c in ALL for k in c} | set(LLAMA["rope_scaling"])),
    "head_dim",
    "rope_theta",
    "partial_rotary_factor",
    "sliding_window",
    "max_position_embeddings",
    "original_max_position_embeddings",
    "rope_parameters",
    "expand",
    "first_k_dense_replace",
    "query_pre_attn_scalar",
    "logits_scaling",
    "time_step_rank",
    "sliding_window_pattern",
    "kv_lora_rank",
    "quantization_config",
    "dtype",
]


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(ALL), st.dictionaries(st.sampled_from(_NAMES), _JUNK, max_size=3), st.booleans())
def test_a_mutated_config_is_a_spec_or_one_error(base, changes, nested):
    config = (
        {**base, "rope_scaling": {**(base.get("rope_scaling") or {}), **changes}} if nested else {**base, **changes}
    )
    try:
        spec = read_config(config, name="x")
    except EdgeqError as error:
        assert "\n" not in error.line
        return
    assert isinstance(spec, ModelSpec) and parameters(spec) > 0
    numbers = [spec.norm_eps, spec.embed_scale, spec.logit_scale, spec.residual_scale]
    assert all(math.isfinite(n) for n in numbers)


@settings(max_examples=100, deadline=None)
@given(st.recursive(_JUNK, lambda x: st.lists(x, max_size=4) | st.dictionaries(st.text(max_size=8), x, max_size=4)))
def test_any_json_is_a_spec_or_one_error(data):
    with pytest.raises(EdgeqError):
        read_config(data, name="x")


def test_the_json_of_a_spec_reads_back():
    from edgeq.jsonable import from_json, to_json

    for config in ALL:
        spec = read_config(config, name="x")
        assert from_json(ModelSpec, json.loads(json.dumps(to_json(spec)))) == spec
