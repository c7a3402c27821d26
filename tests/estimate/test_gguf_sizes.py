"""GGUF sizes to the byte, against files that exist."""

from __future__ import annotations

import pytest

from edgeq.estimate.gguf import gguf_tensors, tensor_bytes
from edgeq.estimate.gguf_header import file_bytes, header
from edgeq.model.tensors import parameters
from edgeq.scheme import GGUF_BASE


@pytest.mark.parametrize(
    ("file_type", "size"),
    [("Q4_0", 3_825_807_040), ("Q4_K_M", 4_081_004_224), ("Q6_K", 5_529_194_176), ("Q8_0", 7_161_089_728)],
)
def test_llama_2_7b(spec_of, file_type, size):
    assert file_bytes(spec_of("llama-2-7b"), file_type) == size
    assert header(spec_of("llama-2-7b")).n_bytes == 741_056


def test_llama_3_1_8b_q4_k_m_tensors(spec_of):
    assert tensor_bytes(spec_of("llama-3.1-8b"), "Q4_K_M") == 4_912_898_048


@pytest.mark.parametrize(
    ("file_type", "bits"), [("Q2_K", 3.1593), ("Q4_K_M", 4.8944), ("Q6_K", 6.5633), ("Q8_0", 8.5008)]
)
def test_llama_3_1_8b_bits_per_weight(spec_of, file_type, bits):
    spec = spec_of("llama-3.1-8b")
    assert round(8 * tensor_bytes(spec, file_type) / parameters(spec), 4) == bits


def test_qwen3_0_6b_counts_the_tied_embedding_once(spec_of):
    spec = spec_of("qwen3-0.6b")
    assert tensor_bytes(spec, "Q8_0") == 633_495_552
    assert file_bytes(spec, "Q8_0") == 639_446_688


# llama-quantize --imatrix on SmolLM2-135M-Instruct: rows of 576 don't fill blocks of 256, so most K types fall back.
SMOLLM2 = {
    "Q8_0": 144_811_296,
    "Q6_K": 138_383_136,
    "Q5_K_M": 112_103_712,
    "Q4_K_M": 105_454_368,
    "Q4_K_S": 102_039_840,
    "Q4_1": 98_362_656,
    "Q3_K_M": 93_510_432,
    "Q4_0": 91_893_024,
    "IQ4_XS": 90_897_696,
    "Q2_K": 88_202_016,
}


@pytest.mark.parametrize("file_type", SMOLLM2)
def test_smollm2_files_share_one_header(spec_of, file_type):
    """The importance matrix adds four metadata entries, so the header is 224 bytes longer than the published one."""
    spec = spec_of("smollm2-135m")
    assert SMOLLM2[file_type] - tensor_bytes(spec, file_type, imatrix=True) == header(spec).n_bytes + 224


def test_published_smollm2_q4_1(spec_of):
    assert file_bytes(spec_of("smollm2-135m"), "Q4_1") == 98_362_432


@pytest.mark.parametrize("name", ["mixtral-8x7b", "deepseek-v2-lite", "hybrid", "mamba", "gemma-3-12b"])
@pytest.mark.parametrize("file_type", GGUF_BASE)
def test_every_type_has_a_size_for_every_architecture(spec_of, name, file_type):
    spec = spec_of(name)
    bits = 8 * tensor_bytes(spec, file_type) / parameters(spec)
    assert 2 < bits < 17
    routers = [t.ggml_type for t in gguf_tensors(spec, file_type) if t.spec.role in {"router", "norm"}]
    assert set(routers) == {"F32"}


def test_eight_experts_keep_their_attention_at_8_bits(spec_of):
    kinds = {t.spec.role: t.ggml_type for t in gguf_tensors(spec_of("mixtral-8x7b"), "Q4_K_M")}
    assert (kinds["k"], kinds["v"], kinds["o"]) == ("Q8_0", "Q8_0", "Q5_K")


def test_unknown_vocabulary_is_marked_as_an_estimate(spec_of):
    guess = header(spec_of("mixtral-8x7b"))
    assert not guess.exact
    assert 600_000 < guess.n_bytes < 900_000
