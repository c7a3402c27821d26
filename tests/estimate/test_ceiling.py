from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.device.spec import Accelerator, Cpu, Device, Figure, Memory
from edgeq.estimate import ceiling, footprint, quantization_needs, weight_bytes, weight_bytes_read
from edgeq.estimate.ceiling import decode_bound, prefill_flop
from edgeq.model.tensors import active_parameters
from edgeq.scheme import named_scheme

GB = 1e9


def machine(bandwidth: float | None = 20e9, memory: int = 32 * 2**30, flops: float | None = 2e11) -> Device:
    read = Figure(bandwidth, "B/s", "measured") if bandwidth else None
    rate = Figure(flops, "FLOP/s", "measured") if flops else None
    cpu = Cpu("cpu", "x86_64", 2, 2, fp32_matmul=rate)
    return Device("test", "file", "linux", cpu, Memory(memory, memory, read))


def test_m1_pro_with_32b_in_16_bits_makes_three_tokens_a_second(spec_of):
    bound = ceiling(machine(200e9), spec_of("qwen2.5-32b"), named_scheme("fp16"), "llamacpp/cpu", 1)
    assert bound.decode_tps == pytest.approx(3, abs=0.15)


@pytest.mark.parametrize(
    ("gigabytes", "measured"), [(0.339, 30.39), (0.355, 28.39), (0.398, 25.77), (0.420, 23.23), (0.531, 19.87)]
)
def test_raspberry_pi_5_stays_below_its_ceiling(gigabytes, measured):
    """llama.cpp #26484, 17.07 GB/s: 57 to 62 % of the ceiling reached."""
    bound = decode_bound(17.07 * GB, gigabytes * GB)
    assert bound > measured
    assert 0.565 < measured / bound < 0.625


def test_an_untied_embedding_is_not_read(spec_of):
    spec = spec_of("llama-2-7b")
    scheme = named_scheme("fp16")
    skipped = weight_bytes(spec, scheme) - weight_bytes_read(spec, scheme)
    assert skipped == pytest.approx(2 * 32000 * 4096, rel=1e-3)


def test_a_tied_embedding_is_read_as_the_head(spec_of):
    scheme = named_scheme("fp16")
    assert weight_bytes_read(spec_of("qwen3-0.6b"), scheme) == weight_bytes(spec_of("qwen3-0.6b"), scheme)


def test_only_active_experts_are_read(spec_of):
    spec = spec_of("qwen3-30b-a3b")
    read = weight_bytes_read(spec, named_scheme("fp16"))
    embedding = 2 * spec.vocab_size * spec.hidden_size
    assert read == pytest.approx(2 * active_parameters(spec) - embedding, rel=1e-3)
    assert read < weight_bytes_read(spec, named_scheme("fp16"), batch=8) < weight_bytes(spec, named_scheme("fp16"))


def test_unknown_bandwidth_is_said_and_never_becomes_zero(spec_of):
    bound = ceiling(machine(None, flops=None), spec_of("llama-2-7b"), named_scheme("fp16"), "llamacpp/cpu", 512)
    assert bound.decode_tps is None and bound.prefill_tps is None and bound.ttft_s is None
    assert "bandwidth" in bound.missing[0] and "matrix rate" in bound.missing[1]


def test_a_missing_accelerator_is_said(spec_of):
    bound = ceiling(machine(), spec_of("llama-2-7b"), named_scheme("fp16"), "llamacpp/cuda", 512)
    assert bound.decode_tps is None
    assert "no accelerator" in bound.missing[0]


def test_an_accelerator_reads_its_own_memory(spec_of):
    card = Accelerator("cuda", "card", 24 * 2**30, 23 * 2**30, Figure(1008e9, "B/s", "spec"))
    device = replace(machine(), accelerators=(card,))
    scheme = named_scheme("gguf-q4_k_m")
    on_card = ceiling(device, spec_of("llama-3.1-8b"), scheme, "llamacpp/cuda", 512).decode_tps
    on_cpu = ceiling(device, spec_of("llama-3.1-8b"), scheme, "llamacpp/cpu", 512).decode_tps
    assert on_card and on_cpu and on_card / on_cpu == pytest.approx(1008 / 20)


def test_prefill_is_two_operations_a_weight(spec_of):
    spec = spec_of("llama-2-7b")
    assert prefill_flop(spec, 512) / 512 == pytest.approx(2 * 6.6e9, rel=0.05)
    bound = ceiling(machine(), spec, named_scheme("fp16"), "llamacpp/cpu", 4096)
    assert bound.prefill_tps == pytest.approx(2e11 / (prefill_flop(spec, 512) / 512))
    assert bound.ttft_s == pytest.approx(512 / bound.prefill_tps + 1 / bound.decode_tps_empty)


def test_real_need_is_20_to_30_percent_above_the_weights(spec_of):
    """At a usual context: Llama-3.1-8B Q4_K_M with 8,192 tokens."""
    need = footprint(spec_of("llama-3.1-8b"), named_scheme("gguf-q4_k_m"), "llamacpp/cpu", 8192)
    assert 1.2 < need.total / need.weights < 1.3
    assert need.activations == 4 * 512 * (4096 + 128256)  # 258.5 MiB in llama.cpp's log


@given(
    context=st.integers(1, 40_000),
    more=st.integers(1, 40_000),
    batch=st.integers(1, 16),
    target=st.sampled_from(["onnxruntime/cpu", "llamacpp/cuda", "openvino/gpu", "torch/cuda"]),
    name=st.sampled_from(["gemma-3-12b", "deepseek-v2-lite", "hybrid", "smollm2-135m", "qwen3-30b-a3b"]),
)
def test_footprint_grows_with_context_and_batch(context, more, batch, target, name):
    spec, scheme = SPECS[name], named_scheme("rtn-int4-g32")
    base = footprint(spec, scheme, target, context, batch).total
    assert base <= footprint(spec, scheme, target, context + more, batch).total
    assert base <= footprint(spec, scheme, target, context, batch + 1).total


@given(
    bandwidth=st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True)),
    context=st.integers(1, 10**6),
    batch=st.integers(1, 64),
)
def test_a_ceiling_is_finite_and_positive_or_unknown(bandwidth, context, batch):
    device = machine(bandwidth)
    bound = ceiling(device, SPECS["smollm2-135m"], named_scheme("gguf-q8_0"), "llamacpp/cpu", context, batch)
    for value in (bound.decode_tps, bound.decode_tps_empty, bound.prefill_tps, bound.ttft_s):
        assert value is None or 0 < value < float("inf")
    assert (bound.decode_tps is None) == any("bandwidth" in m for m in bound.missing)


def test_autoround_takes_minutes_on_an_a100(spec_of):
    """12 minutes and 18 GB were published for an 8B model; half of 312 TFLOP/s is assumed here."""
    rate = Figure(312e12, "FLOP/s", "spec")
    needs = quantization_needs(spec_of("llama-3.1-8b"), named_scheme("autoround-int4-g128"), rate)
    # A quarter of the published recipe's tokens.
    assert needs.hours is not None and 2 < 60 * needs.hours < 8
    assert 4e9 < needs.ram < 18e9


def test_unknown_rate_gives_no_hours_for_a_calibrated_method(spec_of):
    assert quantization_needs(spec_of("llama-2-7b"), named_scheme("gptq-int4-g128")).hours is None
    rtn = quantization_needs(spec_of("llama-2-7b"), named_scheme("rtn-int4-g128"))
    assert rtn.hours is not None and rtn.hours > 0


@pytest.fixture(autouse=True)
def _specs(spec_of):
    for name in ("gemma-3-12b", "deepseek-v2-lite", "hybrid", "smollm2-135m", "qwen3-30b-a3b"):
        SPECS.setdefault(name, spec_of(name))


SPECS: dict = {}
