"""Expected speed from whole models that were timed: the sum of parts, and what stands for a type that was not timed."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from edgeq.device.model_probe import NARROW, WIDE
from edgeq.device.spec import Cpu, Device, Figure, KernelRate, Memory
from edgeq.estimate import whole
from edgeq.estimate.speed import BASIS, decode_parts, expected_decode, expected_prefill
from edgeq.model.spec import MLP, Attention, Layer, ModelSpec, MoE, Rope
from edgeq.plan.expected import Experience
from edgeq.scheme import Grid, Scheme, codebook_grid, int_grid, named_scheme

RATES = {
    "openvino/cpu": {
        "layer": 120e-6,
        "attention": 7e9,
        "attention-prefill": 11e9,
        "decode-int4-g32": 16e9,
        "prefill-int4-g32": 130e9,
        "chunk-int4-g32": 8e9,
        "narrow-int4-g32": 110e9,
        "decode-int8-g32": 12e9,
        "prefill-int8-g32": 138e9,
        "decode-int4-g128": 18e9,
        "prefill-int4-g128": 143e9,
    },
    "llamacpp/cpu": {
        "layer": 50e-6,
        "attention": 4e9,
        "attention-prefill": 18e9,
        "decode-Q4_0": 28e9,
        "prefill-Q4_0": 115e9,
        "chunk-Q4_0": 160e9,
        "narrow-Q4_0": 90e9,
        "decode-Q8_0": 18e9,
        "prefill-Q8_0": 116e9,
    },
}


def device(**changes: float) -> Device:
    kernels = [
        KernelRate(target, name, Figure(changes.get(name, value), "", "measured"))
        for target, rates in RATES.items()
        for name, value in rates.items()
    ]
    memory = Memory(16 << 30, 16 << 30, Figure(26e9, "bytes/s", "measured"), ((1, 18e9), (2, 26e9)))
    return Device("test", "local", "linux", Cpu("test", "x86_64", 2, 2), memory, kernels=tuple(kernels))


def model(hidden: int = 2048, layers: int = 16, mlp: int = 5632, **mixer: object) -> ModelSpec:
    attention = Attention(32, 8, 64, 0.125, Rope(1e4, 64), **mixer)  # type: ignore[arg-type]
    return ModelSpec("m", "llama", hidden, 49152, (Layer(attention, MLP(mlp)),) * layers, True, 8192)


def scheme(linear: Grid, embed: Grid | None = None) -> Scheme:
    return Scheme("s", "rtn", linear, embed or linear)


MATRICES = 16 * (2048 * (2 * 2048 + 2 * 512) + 3 * 2048 * 5632)
HEAD = 49152 * 2048
INT4 = scheme(int_grid(4, 32), int_grid(8, 32))
Q4_0 = named_scheme("gguf-q4_0")
WAYS = [("openvino/cpu", INT4), ("llamacpp/cpu", Q4_0)]


def tps(target: str, spec: ModelSpec, how: Scheme, context: int = 64, **rates: float) -> float:
    found = expected_decode(device(**rates), spec, how, target, context=context)
    assert found is not None and found.basis == BASIS and math.isfinite(found.tps) and found.tps > 0
    return found.tps


def test_a_step_is_the_sum_of_its_parts() -> None:
    parts = decode_parts(device(), model(), INT4, "openvino/cpu", context=1000)
    assert parts is not None
    assert parts.matrices == pytest.approx(MATRICES / 16e9)
    assert parts.head == pytest.approx(HEAD / 12e9)
    assert parts.attention == pytest.approx(16 * 2 * 32 * 64 * 1000 / 7e9)
    assert parts.glue == pytest.approx(16 * 120e-6)
    assert 1 / tps("openvino/cpu", model(), INT4, context=1000) == pytest.approx(parts.total)


def test_a_prompt_is_the_sum_of_its_parts() -> None:
    found = expected_prefill(device(), replace(model(), hidden_size=2048), INT4, "openvino/cpu", prompt=600)
    attention = 16 * 2 * 32 * 64 * 600 * 600 / 2 / 11e9
    seconds = MATRICES * (2 * 600 / 130e9 + 2 / 8e9) + 2 * HEAD / 12e9 + attention  # two passes of up to 512 tokens
    assert found is not None and found.basis == BASIS
    assert found.tps == pytest.approx(600 / seconds)
    assert f"{1000 * seconds:.0f} ms for 600 tokens" in found.detail


@pytest.mark.parametrize(("target", "how"), WAYS)
def test_more_work_is_slower(target: str, how: Scheme) -> None:
    base = tps(target, model(), how)
    assert tps(target, model(layers=17), how) < base
    assert tps(target, model(mlp=6144), how) < base
    assert tps(target, model(), how, context=4096) < tps(target, model(), how, context=512) < base
    assert tps(target, model(qk_norm="head"), how) < base
    assert tps(target, replace(model(), norm_layout="sandwich"), how) < base


@pytest.mark.parametrize(("target", "how"), WAYS)
@pytest.mark.parametrize("slower", ["layer", "attention", "decode-int4-g32", "decode-Q4_0"])
def test_every_rate_counts_where_it_belongs(target: str, how: Scheme, slower: str) -> None:
    mine = slower in RATES[target]
    value = 2 * RATES[target][slower] if slower == "layer" else RATES[target].get(slower, 1e9) / 2
    assert (tps(target, model(), how, **{slower: value}) < 0.999 * tps(target, model(), how)) == mine


def test_fewer_threads_are_slower_by_their_bandwidth() -> None:
    one, two = (expected_decode(device(), model(), Q4_0, "llamacpp/cpu", context=64, threads=n) for n in (1, 2))
    assert one is not None and two is not None and one.tps / two.tps == pytest.approx(18 / 26)


def test_a_window_bounds_attention() -> None:
    windowed = model(window=256)
    assert tps("llamacpp/cpu", windowed, Q4_0, context=8000) == tps("llamacpp/cpu", windowed, Q4_0, context=256)
    long, short = (expected_prefill(device(), m, Q4_0, "llamacpp/cpu", prompt=2048) for m in (model(), windowed))
    assert long is not None and short is not None and short.tps > long.tps


def test_a_narrow_model_reads_prompts_more_slowly_than_its_size_says() -> None:
    def flops(hidden: int, mlp: int) -> float:
        spec = model(hidden=hidden, mlp=mlp)
        seconds = whole.prefill_seconds(spec, Q4_0, RATES["llamacpp/cpu"], prompt=512)
        attention = 16 * 2 * 32 * 64 * 512 * 512 / 2 / 18e9
        weights = 16 * (hidden * 64 * 80 + 3 * hidden * mlp)
        return 2 * 512 * weights / (seconds - attention - weights / 160e9 - 49152 * hidden / 18e9)

    assert flops(NARROW.hidden, 1536) == pytest.approx(90e9, rel=0.01)
    assert flops(WIDE.hidden, 4096) == pytest.approx(115e9, rel=0.01)
    assert flops(4096, 11008) == pytest.approx(115e9, rel=0.01)
    assert 90e9 < flops(1024, 3072) < 115e9


def test_groups_between_two_timed_ones_lie_between_them() -> None:
    at_32, at_64, at_128 = (
        tps("openvino/cpu", model(), scheme(int_grid(4, n), int_grid(8, 32))) for n in (32, 64, 128)
    )
    row = tps("openvino/cpu", model(), scheme(int_grid(4, -1), int_grid(8, 32)))
    assert at_32 < at_64 < at_128 < row < 1.2 * at_128


def test_blocks_that_were_not_timed_take_the_nearest_by_their_bytes() -> None:
    rates = RATES["llamacpp/cpu"]
    q5_0 = whole.decode_parts(model(), named_scheme("gguf-q5_0"), rates, context=1)
    q4_0 = whole.decode_parts(model(), Q4_0, rates, context=1)
    assert q5_0.matrices / q4_0.matrices == pytest.approx(22 / 18)  # bytes of a block of 32
    assert not whole.describes(model(), named_scheme("fp16"), rates)  # twice the bytes of the nearest


def test_an_integer_checkpoint_is_blocks_in_a_gguf() -> None:
    symmetric = scheme(int_grid(4, 32, symmetric=True), int_grid(8, 32, symmetric=True))
    parts = decode_parts(device(), model(), symmetric, "llamacpp/cpu", context=64)
    assert parts is not None
    assert parts.matrices == pytest.approx(MATRICES / 28e9) and parts.head == pytest.approx(HEAD / 18e9)


@pytest.mark.parametrize(
    ("target", "how"),
    [
        ("openvino/cpu", scheme(int_grid(2, 32), int_grid(8, 32))),
        ("openvino/cpu", scheme(int_grid(4, 16), int_grid(8, 32))),
        ("openvino/cpu", scheme(codebook_grid("nf4", 64), int_grid(8, 32))),
        ("openvino/cpu", replace(INT4, act_bits=8)),
        ("openvino/gpu", INT4),
        ("llamacpp/cpu", named_scheme("gguf-q2_k")),
        ("llamacpp/cuda", Q4_0),
    ],
)
def test_what_was_not_timed_stays_a_prior(target: str, how: Scheme) -> None:
    assert decode_parts(device(), model(), how, target) is None
    found = expected_decode(device(), model(), how, target)
    assert found is None or found.basis == "prior"


def test_experts_and_other_mixers_stay_a_prior() -> None:
    moe = replace(model(), layers=(Layer(model().layers[0].mixer, MoE(8, 2, 1024)),) * 4)
    assert decode_parts(device(), moe, INT4, "openvino/cpu") is None


@pytest.mark.parametrize("bad", [0.0, math.inf, math.nan, -1.0])
@pytest.mark.parametrize("kernel", ["layer", "attention", "attention-prefill", "decode-Q4_0"])
def test_a_rate_that_went_wrong_falls_back(bad: float, kernel: str) -> None:
    how = named_scheme("gguf-q4_0")
    found = expected_decode(device(**{kernel: bad}), model(), how, "llamacpp/cpu")
    assert found is not None and math.isfinite(found.tps) and 0 < found.tps < 1000
    if kernel != "decode-Q4_0":  # that one is then taken from the nearest type
        assert found.basis == "prior"


@pytest.mark.parametrize(("target", "how"), WAYS)
def test_the_plan_expects_what_was_timed(target: str, how: Scheme) -> None:
    found = Experience(device(), []).decode(model(), how, target, 64, 1, 40.0, "f16")
    assert found is not None and found.basis == BASIS and found.tps == tps(target, model(), how)


def test_the_estimate_knows_the_widths_that_were_timed() -> None:
    assert (WIDE.hidden, NARROW.hidden) == (whole._WIDE, whole._NARROW)
