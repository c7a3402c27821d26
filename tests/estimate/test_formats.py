from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.errors import EdgeqError
from edgeq.estimate.formats import bits_per_weight, grid_bytes, stored_tensors, weight_bytes
from edgeq.model.tensors import parameters
from edgeq.scheme import F16, int_grid, named_scheme


def test_70b_in_16_bits_is_140_gb(spec_of):
    assert round(weight_bytes(spec_of("llama-70b"), named_scheme("fp16")) / 1e9) in (138, 140)


def test_qwen_2_5_7b_rule_of_thumb(spec_of):
    """14 / 7 / 3.5 GB for 7e9 weights: the codes alone, per billion stored parameters."""
    spec = spec_of("qwen2.5-7b")
    billions = parameters(spec) / 1e9
    assert weight_bytes(spec, named_scheme("fp16")) / 1e9 == pytest.approx(2 * billions, rel=1e-3)
    eight, four = (weight_bytes(spec, named_scheme(f"rtn-int{bits}-g128-sym")) / 1e9 for bits in (8, 4))
    assert eight == pytest.approx(billions, rel=0.03)
    assert 0.5 * billions < four < 0.62 * billions  # embedding and head stay at 8 bits


@pytest.mark.parametrize(
    ("grid", "bits"),
    [(int_grid(4, 128), 4.15625), (int_grid(4, 128, symmetric=True), 4.125)],
)
def test_bits_of_the_neutral_layout(grid, bits):
    """bits + scale_bits / g + zero_bits / g."""
    assert 8 * grid_bytes(4096, 4096, grid) / 4096**2 == bits


def test_matmulnbits_stores_float32_scales():
    """g32: 4 + 32/32 = 5 bits symmetric, 5.125 with zero points; f16 scales would give 4.5 and 4.625."""
    assert 8 * grid_bytes(4096, 4096, int_grid(4, 32, symmetric=True), "onnxruntime") / 4096**2 == 5.0
    assert 8 * grid_bytes(4096, 4096, int_grid(4, 32), "onnxruntime") / 4096**2 == 5.125


def test_matmulnbits_pads_the_last_group_and_packs_zero_points_per_row():
    """576 columns in groups of 128: 5 groups of 64 bytes, 5 scales, 3 bytes of zero points a row."""
    assert grid_bytes(10, 576, int_grid(4, 128), "onnxruntime") == 10 * (5 * 64 + 5 * 4 + 3)


def test_openvino_packs_codes_and_keeps_f16_scales():
    assert grid_bytes(64, 256, int_grid(4, 64), "openvino") == 64 * 256 // 2 + 2 * 64 * 4 + 64 * 4 // 2
    assert grid_bytes(64, 256, int_grid(8, 64), "openvino") == 64 * 256 + 2 * 64 * 4 + 64 * 4


def test_a_tied_embedding_counts_once(spec_of):
    spec = spec_of("qwen3-0.6b")
    assert [t.spec.role for t in stored_tensors(spec, named_scheme("fp16"))].count("embed") == 1
    assert weight_bytes(spec, named_scheme("fp16")) == 2 * parameters(spec)


def test_head_and_embedding_take_eight_bits_below_eight(spec_of):
    roles = {t.spec.role: t for t in stored_tensors(spec_of("llama-2-7b"), named_scheme("gptq-int4-g128"))}
    assert roles["embed"].n_bytes == roles["head"].n_bytes > roles["embed"].spec.numel


@given(
    rows=st.integers(1, 64),
    columns=st.integers(1, 600),
    group=st.sampled_from([-1, 16, 32, 64, 128]),
    runtime=st.sampled_from([None, "onnxruntime", "openvino"]),
    symmetric=st.booleans(),
)
def test_fewer_bits_never_take_more(rows, columns, group, runtime, symmetric):
    sizes = [grid_bytes(rows, columns, int_grid(b, group, symmetric=symmetric), runtime) for b in (2, 3, 4, 8)]
    assert sizes == sorted(sizes)
    assert grid_bytes(rows, columns, F16, runtime) == (4 if runtime == "onnxruntime" else 2) * rows * columns


@pytest.mark.parametrize("name", ["rtn-int4-g32", "awq+gptq-int4-g128-sym", "w8a8-smooth", "gguf-q4_k_m", "fp16"])
def test_schemes_are_named_as_they_are_called(name, spec_of):
    assert named_scheme(name.upper()).name == name
    assert bits_per_weight(spec_of("llama-3.1-8b"), named_scheme(name)) <= 16


@pytest.mark.parametrize("name", ["", "int4", "magic-int4-g32", "rtn-int1", "rtn-int4-g0", "gguf-q9_k", "rtn-int9-g32"])
def test_unknown_schemes_say_what_is_known(name):
    with pytest.raises(EdgeqError) as error:
        named_scheme(name)
    assert error.value.hint
