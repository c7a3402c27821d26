"""Data files that `edgeq export` wrote, to the byte, and those that it writes here."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgeq.estimate import weight_bytes
from edgeq.estimate.onnx_file import onnx_data_bytes
from edgeq.scheme import named_scheme


@pytest.mark.parametrize(("name", "size"), [("smollm2-135m", 104_288_000), ("qwen3-0.6b", 471_314_432)])
def test_exported_files_to_the_byte(spec_of, name, size):
    spec = replace(spec_of(name), max_positions=8192)
    assert onnx_data_bytes(spec, named_scheme("rtn-int4-g32")) == size
    assert weight_bytes(spec, named_scheme("rtn-int4-g32"), "onnxruntime/cpu") == size


def test_a_scale_a_row_has_no_blocks(spec_of):
    """What `edgeq export` wrote of SmolLM2-135M with 8-bit weights and activations, static and dynamic."""
    spec = replace(spec_of("smollm2-135m"), max_positions=8192)
    assert onnx_data_bytes(spec, named_scheme("w8a8-smooth")) == 142_868_992


def test_a_sparse_model_or_float_weights_are_summed_by_tensor(spec_of):
    assert onnx_data_bytes(spec_of("deepseek-v2-lite"), named_scheme("rtn-int4-g32")) is None
    assert onnx_data_bytes(spec_of("llama-2-7b"), named_scheme("fp32")) is None


def test_an_untied_head_is_a_matrix_of_its_own(spec_of):
    tied = spec_of("qwen3-0.6b")
    scheme = named_scheme("rtn-int8-g32")
    more = onnx_data_bytes(replace(tied, tied=False), scheme) - onnx_data_bytes(tied, scheme)
    assert more == pytest.approx(tied.vocab_size * tied.hidden_size * (8 + 1 + 0.25) / 8, rel=0.001)
