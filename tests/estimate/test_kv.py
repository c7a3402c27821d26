from __future__ import annotations

import pytest

from edgeq.errors import EdgeqError
from edgeq.estimate.kv import KV_DTYPES, kv_bytes_per_token, kv_cache_bytes, kv_read_bytes, state_bytes

GIB = 2**30


def test_gemma_3_12b_holds_windows_not_contexts(spec_of):
    """2.31 GiB by architecture, 2.47 with llama.cpp's padding; planners that ignore windows say 12."""
    spec = spec_of("gemma-3-12b")
    assert kv_cache_bytes(spec, 32768) / GIB == 2.3125
    assert round(kv_cache_bytes(spec, 32768, target="llamacpp/cpu") / GIB, 2) == 2.47
    assert kv_cache_bytes(spec, 32768, target="onnxruntime/cpu") / GIB == 12.0


def test_latent_attention_is_absorbed_or_full_by_runtime(spec_of):
    spec = spec_of("deepseek-v2-lite")
    assert round(kv_cache_bytes(spec, 32768) / GIB, 2) == 0.95
    assert round(kv_cache_bytes(spec, 32768, target="llamacpp/cuda") / GIB, 2) == 0.95
    assert kv_bytes_per_token(spec, target="torch/cuda") == 276_480


@pytest.mark.parametrize(
    ("name", "per_token"), [("llama-2-7b", 524_288), ("llama-3.1-8b", 131_072), ("qwen3-30b-a3b", 98_304)]
)
def test_bytes_per_token(spec_of, name, per_token):
    assert kv_bytes_per_token(spec_of(name)) == per_token
    assert kv_cache_bytes(spec_of(name), 4096) == 4096 * per_token


def test_llama_2_7b_at_4k_is_two_gib(spec_of):
    assert kv_cache_bytes(spec_of("llama-2-7b"), 4096) == 2 * GIB


def test_grows_linearly_in_context_and_sequences_and_fp8_halves_it(spec_of):
    spec = spec_of("llama-3.1-8b")
    one = kv_cache_bytes(spec, 4096)
    assert kv_cache_bytes(spec, 8192) == kv_cache_bytes(spec, 4096, batch=2) == 2 * one
    assert kv_cache_bytes(spec, 4096, kv_dtype="fp8") * 2 == one


def test_block_dtypes(spec_of):
    """q8_0 takes 1.0625 and q4_0 0.5625 bytes a value."""
    spec = spec_of("llama-3.1-8b")
    values = kv_bytes_per_token(spec, kv_dtype="fp8")
    assert kv_bytes_per_token(spec, kv_dtype="q8_0") == values * 1.0625
    assert kv_bytes_per_token(spec, kv_dtype="q4_0") == values * 0.5625


def test_recurrent_state_does_not_grow(spec_of):
    """12 gated delta layers: 4 * (3 * (4096 + 2*2048) + 128 * 4096) bytes each."""
    spec = spec_of("hybrid")
    assert state_bytes(spec) == 12 * 4 * (3 * 8192 + 128 * 4096)
    growth = kv_cache_bytes(spec, 2048) - kv_cache_bytes(spec, 1024)
    assert growth == 1024 * 4 * 2 * 2 * 256 * 2
    assert kv_cache_bytes(spec_of("mamba"), 1 << 20) == state_bytes(spec_of("mamba"))
    assert state_bytes(spec_of("mamba")) == 64 * 4 * (3 * (5120 + 256) + 128 * 5120)


def test_a_window_limits_what_is_read_even_where_all_is_held(spec_of):
    spec = spec_of("gemma-3-12b")
    assert kv_read_bytes(spec, 32768, target="onnxruntime/cpu") == kv_cache_bytes(spec, 32768)


def test_every_dtype_is_no_larger_than_the_one_before(spec_of):
    sizes = [kv_bytes_per_token(spec_of("llama-3.1-8b"), kv_dtype=d) for d in KV_DTYPES]
    assert sizes[0] == 2 * sizes[1]
    assert min(sizes) == sizes[-2] or min(sizes) == sizes[-1]


def test_onnxruntimes_scales_are_a_constant_of_the_graph(spec_of):
    """An int8 cache takes a quarter of a float32 one, and a float32 a channel, once."""
    spec = spec_of("llama-3.1-8b")
    scales = 32 * 2 * 8 * 128 * 4
    whole = kv_cache_bytes(spec, 4096, kv_dtype="f32", target="onnxruntime/cpu")
    assert kv_cache_bytes(spec, 4096, kv_dtype="int8", target="onnxruntime/cpu") == whole // 4 + scales
    assert kv_cache_bytes(spec, 4096, kv_dtype="int4", target="onnxruntime/cpu") == whole // 8 + scales
    assert kv_bytes_per_token(spec, kv_dtype="int8", target="onnxruntime/cpu") == 65_536


def test_bad_values_say_so(spec_of):
    with pytest.raises(EdgeqError, match="at least 1"):
        kv_cache_bytes(spec_of("llama-2-7b"), 0)
    with pytest.raises(EdgeqError, match="unknown KV cache dtype 'int3'"):
        kv_cache_bytes(spec_of("llama-2-7b"), 1, kv_dtype="int3")
