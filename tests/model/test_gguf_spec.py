"""A GGUF's metadata and tensors give the spec that the model's own config gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.errors import EdgeqError
from edgeq.model import read_model
from edgeq.model.config import read_config
from edgeq.model.names import gguf_names, gguf_permuted, gguf_slices
from edgeq.model.spec import LatentAttention, ModelSpec
from edgeq.model.tensors import tensors

BASE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
    "rope_theta": 5000.0,
    "tie_word_embeddings": True,
}
KEYS: dict[str, Any] = {
    "block_count": 6,
    "context_length": 512,
    "embedding_length": 64,
    "feed_forward_length": 96,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "rope.freq_base": 5000.0,
}
MOE_KEYS = {"expert_count": 4, "expert_used_count": 2}
MLA = {"kv_lora_rank": 12, "q_lora_rank": None, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 6}
MLA |= {"first_k_dense_replace": 1, "n_routed_experts": 4, "n_shared_experts": 2, "moe_intermediate_size": 16}
MLA_KEYS = {"attention.kv_lora_rank": 12, "attention.key_length": 12, "attention.value_length": 6}
MLA_KEYS |= {"rope.dimension_count": 4, "leading_dense_block_count": 1, "expert_feed_forward_length": 16}

# architecture -> (model_type, config fields, GGUF keys)
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "llama": ("llama", {}, {}),
    "qwen2": ("qwen2", {"tie_word_embeddings": False}, {}),
    "qwen3": ("qwen3", {"head_dim": 32}, {"attention.key_length": 32}),
    "gemma2": (
        "gemma2",
        {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 8},
        {
            "attention.key_length": 32,
            "attention.sliding_window": 8,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        },
    ),
    "gemma3": (
        "gemma3_text",
        {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 8},
        {"attention.key_length": 32, "attention.sliding_window": 8},
    ),
    "phi3": ("phi3", {"partial_rotary_factor": 0.5}, {"rope.dimension_count": 8}),
    "smollm3": ("smollm3", {}, {}),
    "olmo2": ("olmo2", {}, {}),
    "granite": (
        "granite",
        {
            "embedding_multiplier": 12.0,
            "residual_multiplier": 0.22,
            "attention_multiplier": 0.25,
            "logits_scaling": 8.0,
        },
        {"embedding_scale": 12.0, "residual_scale": 0.22, "attention.scale": 0.25, "logit_scale": 8.0},
    ),
    "mixtral": ("mixtral", {"num_local_experts": 4}, MOE_KEYS),
    "qwen3moe": (
        "qwen3_moe",
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "norm_topk_prob": True},
        {**MOE_KEYS, "expert_feed_forward_length": 16},
    ),
    "gpt-oss": (
        "gpt_oss",
        {"head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8}
        | {"rope_scaling": {"rope_type": "yarn", "factor": 32.0, "truncate": False}},
        {**MOE_KEYS, "attention.sliding_window": 8, "rope.scaling.type": "yarn", "rope.scaling.factor": 32.0},
    ),
    "deepseek2": ("deepseek_v2", {**MLA, "num_experts_per_tok": 2}, {**MOE_KEYS, **MLA_KEYS}),
}
_FILE_ARCH = {"mixtral": "llama"}


def _expected(name: str) -> ModelSpec:
    kind, fields, _ = CASES[name]
    return read_config({"model_type": kind, **BASE, **fields}, name="m.gguf")


def _shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """The file's tensors: slices of one tensor put together again."""
    out: dict[str, tuple[int, ...]] = {}
    where = gguf_slices(spec)
    for t in tensors(spec):
        at = where[t.name]
        rows = (at.row_stop or 0) if at.row_start is not None else t.shape[0]
        out[at.name] = (max(rows, out.get(at.name, (0,))[0]), *t.shape[1:])
    return out


def _write(write_gguf: Any, name: str, change: Mapping[str, Any] | None = None, shapes: Any = None) -> Path:
    arch = _FILE_ARCH.get(name, name)
    keys = {f"{arch}.{k}": v for k, v in {**KEYS, **CASES[name][2], **(change or {})}.items() if v is not None}
    path: Path = write_gguf(arch, keys, shapes or _shapes(_expected(name)))
    return path


@pytest.mark.parametrize("name", CASES)
def test_the_file_says_what_the_config_says(write_gguf, name):
    path = _write(write_gguf, name)
    made, want = read_model(str(path)), _expected(name)
    assert (made.origin, made.location, made.source_dtype) == ("gguf", str(path), "F32")
    # What a GGUF stores otherwise: Gemma's norms with the one added; gpt-oss's default betas spelled out.
    same = replace(
        made, origin=want.origin, location=None, source_dtype=want.source_dtype, norm_offset=want.norm_offset
    )
    assert made.norm_offset == 0.0
    if name == "gpt-oss":
        assert [replace(x.mixer, rope=None) for x in same.layers] == [replace(x.mixer, rope=None) for x in want.layers]
        rope, theirs = same.layers[0].mixer.rope, want.layers[0].mixer.rope
        assert dict(theirs.params).items() <= dict(rope.params).items() and rope.theta == theirs.theta
        same = replace(same, layers=want.layers)
    assert same == want


def test_llama_3_scaling_comes_from_its_tensor(write_gguf):
    factors = np.linspace(1, 8, 8).astype(np.float32)
    path = _write(write_gguf, "llama", shapes={**_shapes(_expected("llama")), "rope_freqs.weight": factors})
    rope = read_model(str(path)).layers[0].mixer.rope
    assert rope.kind == "longrope" and rope.factors("short_factor") == rope.factors("long_factor") == tuple(factors)
    assert rope.param("attention_factor", 0) == 1.0


def test_deepseek_temperature_survives_the_file(write_gguf):
    change = {"rope.scaling.type": "yarn", "rope.scaling.factor": 40.0, "rope.scaling.yarn_log_multiplier": 0.0707}
    mixer = read_model(str(_write(write_gguf, "deepseek2", change))).layers[0].mixer
    scaling = {"type": "yarn", "factor": 40.0, "mscale": 0.707, "mscale_all_dim": 0.707}
    config = {"model_type": "deepseek_v2", **BASE, **MLA, "num_experts_per_tok": 2, "rope_scaling": scaling}
    want = read_config(config, name="x").layers[0].mixer
    assert isinstance(mixer, LatentAttention) and isinstance(want, LatentAttention)
    assert mixer.scale == pytest.approx(want.scale, rel=1e-6)
    assert mixer.rope.param("attention_factor", 0) == pytest.approx(want.rope.param("attention_factor", 0))


def test_an_unknown_architecture_is_marked_as_estimated(write_gguf):
    keys = {f"brandnew.{k}": v for k, v in KEYS.items()}
    spec = read_model(str(write_gguf("brandnew", keys, _shapes(_expected("llama")))))
    assert spec.estimated and spec.layers[0].ffn == _expected("llama").layers[0].ffn


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block_count": None}, "block_count is missing"),
        ({"block_count": 0}, "block_count is 0"),
        ({"attention.head_count": 5}, "head_count"),
        ({"attention.head_count_kv": 3}, "head_count_kv is 3"),
        ({"feed_forward_length": 97}, r"ffn_gate\.weight.*\[97, 64\].*\[96, 64\]"),
        ({"rope.freq_base": 0.0}, "freq_base is 0.0"),
        ({"rope.dimension_count": 7}, "dimension_count is 7"),
        ({"rope.scaling.type": "spiral"}, "scaling.type is 'spiral'"),
        ({"attention.layer_norm_rms_epsilon": float("nan")}, "epsilon is nan"),
        ({"attention.head_count": [4, 4]}, "one number above zero for each of 6 layers"),
    ],
)
def test_a_wrong_key_is_named(write_gguf, change, message):
    with pytest.raises(EdgeqError, match=message) as caught:
        read_model(str(_write(write_gguf, "llama", change)))
    assert "\n" not in caught.value.line


def test_a_missing_tensor_is_named(write_gguf):
    shapes = _shapes(_expected("llama"))
    del shapes["blk.3.ffn_up.weight"]
    with pytest.raises(EdgeqError, match=r"blk\.3\.ffn_up\.weight is missing"):
        read_model(str(_write(write_gguf, "llama", shapes=shapes)))


def test_part_of_a_split_model(write_gguf):
    path = write_gguf("llama", {**{f"llama.{k}": v for k, v in KEYS.items()}, "split.count": 2}, {"a": (2,)})
    with pytest.raises(EdgeqError, match="split GGUF"):
        read_model(str(path))


def test_names_and_permutation():
    names = gguf_names(_expected("olmo2"))
    assert names["layers.2.post_mlp_norm"] == "blk.2.post_ffw_norm.weight"
    assert gguf_names(_expected("gpt-oss"))["layers.0.mlp_norm"] == "blk.0.post_attention_norm.weight"
    fused = gguf_slices(_expected("phi3"))
    assert (fused["layers.0.up"].name, fused["layers.0.up"].row_start) == ("blk.0.ffn_up.weight", 96)
    assert [n for n in CASES if gguf_permuted(_expected(n))] == ["llama", "smollm3", "granite", "mixtral"]
