"""Expected speed from measured kernels: what must make a model slower does, and nothing becomes 0 or infinite."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from edgeq.device.spec import Cache, Cpu, Device, Figure, KernelRate, Memory
from edgeq.estimate.speed import _STEADY, BASIS, decode_parts, expected_decode, expected_prefill
from edgeq.model.spec import MLP, Attention, Layer, ModelSpec, MoE, Rope
from edgeq.scheme import F16, Grid, Scheme, codebook_grid, int_grid

TARGET = "onnxruntime/cpu"
RATES = {
    "MatMulNBits-4-g32": 40e9,
    "MatMulNBits-4-g128": 55e9,
    "MatMulNBits-8-g32": 27e9,
    "MatMulNBits-4-g32-cached": 90e9,
    "MatMulNBits-4-g32-prefill": 200e9,
    "MatMul-f32": 9e9,
    "GroupQueryAttention": 12e9,
    "glue": 2e9,
    "layer": 40e-6,
    "step": 5e-6,
}


def device(**changes: float) -> Device:
    kernels = tuple(KernelRate(TARGET, k, Figure(v, "", "measured")) for k, v in (RATES | changes).items())
    cpu = Cpu("test", "x86_64", 2, 2, caches=(Cache(3, 32 << 20, 2),))
    memory = Memory(16 << 30, 16 << 30, Figure(40e9, "bytes/s", "measured"), ((1, 25e9), (2, 40e9)))
    return Device("test", "local", "linux", cpu, memory, kernels=kernels)


def model(hidden: int = 2048, layers: int = 16, mlp: int = 5632, **mixer: object) -> ModelSpec:
    attention = Attention(32, 8, 64, 0.125, Rope(1e4, 64), **mixer)  # type: ignore[arg-type]
    return ModelSpec("m", "llama", hidden, 49152, (Layer(attention, MLP(mlp)),) * layers, True, 8192)


def scheme(linear: Grid, embed: Grid | None = None) -> Scheme:
    return Scheme("s", "rtn", linear, embed or linear)


INT4 = scheme(int_grid(4, 32))


def tps(
    spec: ModelSpec, how: Scheme = INT4, context: int = 64, on: Device | None = None, threads: int | None = None
) -> float:
    found = expected_decode(on or device(), spec, how, TARGET, context=context, threads=threads)
    assert found is not None and found.basis == BASIS and math.isfinite(found.tps) and found.tps > 0
    return found.tps


def test_a_step_is_the_sum_of_its_parts() -> None:
    parts = decode_parts(device(), model(), INT4, TARGET, context=1000)
    assert parts is not None
    weights = 16 * (2048 * (3072 + 2048) + 3 * 2048 * 5632)
    assert parts.matrices == pytest.approx(_STEADY * weights / 40e9)
    assert parts.head == pytest.approx(_STEADY * 49152 * 2048 / 40e9)
    assert parts.attention == pytest.approx(_STEADY * 16 * 2 * 32 * 64 * 1000 / 12e9)
    assert 1 / tps(model(), context=1000) == pytest.approx(parts.total)


def test_more_work_is_slower() -> None:
    base = tps(model())
    assert tps(model(layers=17)) < base
    assert tps(model(mlp=6000)) < base
    assert tps(model(), context=4096) < tps(model(), context=512) < base
    assert tps(model(qk_norm="head")) < base
    assert tps(model(), scheme(int_grid(8, 32))) < base < tps(model(), scheme(int_grid(4, 64)))
    assert tps(model(), scheme(int_grid(4, 64))) < tps(model(), scheme(int_grid(4, 128)))
    assert tps(model(), scheme(int_grid(4, 16))) < base
    assert tps(model(), scheme(F16)) < tps(model(), scheme(int_grid(8, 32)))
    assert tps(model(), scheme(int_grid(4, 32), int_grid(8, 32))) < base


def test_a_window_bounds_attention() -> None:
    assert tps(model(window=256), context=8000) == tps(model(window=256), context=256)


def test_one_thread_is_as_much_slower_as_its_bandwidth() -> None:
    assert 0.6 < tps(model(), threads=1) / tps(model(), threads=2) < 0.7
    assert tps(model(), threads=8) == tps(model(), threads=2)


def test_weights_that_stay_in_the_cache_are_faster_than_by_size_alone() -> None:
    tiny = replace(model(hidden=256, layers=2, mlp=512), vocab_size=1000)
    parts, cold = (decode_parts(device(**{"MatMulNBits-4-g32-cached": r}), tiny, INT4, TARGET) for r in (90e9, 40e9))
    assert parts is not None and cold is not None and parts.matrices == pytest.approx(cold.matrices * 40 / 90)


@pytest.mark.parametrize("bad", [0.0, math.inf, math.nan, -1.0])
@pytest.mark.parametrize("kernel", ["MatMulNBits-4-g32", "layer", "glue"])
def test_a_rate_that_went_wrong_falls_back_to_the_prior(bad: float, kernel: str) -> None:
    found = expected_decode(device(**{kernel: bad}), model(), INT4, TARGET)
    assert found is not None and found.basis == "prior" and 0 < found.tps < 1000


def test_what_the_kernels_do_not_describe_falls_back_to_the_prior() -> None:
    moe = replace(model(), layers=(Layer(model().layers[0].mixer, MoE(8, 2, 1024)),) * 4)
    for spec, how, target in (
        (moe, INT4, TARGET),
        (model(), INT4, "llamacpp/cpu"),
        (model(), replace(INT4, act_bits=8), TARGET),
        (model(), scheme(codebook_grid("nf4", 64)), TARGET),
    ):
        found = expected_decode(device(), spec, how, target)
        assert found is not None and found.basis == "prior" and found.tps > 0


def test_three_bits_run_on_the_kernel_for_four() -> None:
    three, four = (expected_decode(device(), model(), scheme(int_grid(b, 32)), TARGET) for b in (3, 4))
    assert three is not None and four is not None
    assert three.basis != "prior" and three.tps == four.tps


def test_nothing_known_gives_nothing() -> None:
    blank = replace(device(), kernels=(), memory=Memory(1 << 30, 1 << 30))
    assert expected_decode(blank, model(), INT4, TARGET) is None
    assert expected_prefill(blank, model(), INT4, TARGET) is None


def test_prefill_follows_the_measured_rate() -> None:
    found = expected_prefill(device(), model(), INT4, TARGET, prompt=128)
    faster = expected_prefill(device(**{"MatMulNBits-4-g32-prefill": 400e9}), model(), INT4, TARGET, prompt=128)
    assert found is not None and faster is not None and found.basis == BASIS
    assert 1.5 < faster.tps / found.tps < 2
    assert found.tps < 200e9 / (2 * 16 * (2048 * (3072 + 2048) + 3 * 2048 * 5632))
