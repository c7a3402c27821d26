"""How fast a plan expects it to be: from what was measured here, learned, or known beforehand."""

from __future__ import annotations

import pytest

from edgeq.benchmark import Benchmark, Decode, Promise, Samples, device_key
from edgeq.device.spec import Figure, KernelRate


def test_unknown_bandwidth_never_becomes_a_speed(make, laptop_of):
    plan = make(laptop_of(32, bandwidth=None), "7B", min_tps=5)
    assert plan.candidates
    for c in plan.candidates:
        assert c.expected is None and c.ceiling.decode_tps is None
        assert any("unknown" in r for r in c.reasons)


def benchmark(device, model, scheme, tps, ceiling_tps=None, context=128, load=0.0):
    runs = Samples.of([tps])
    return Benchmark(
        date="2026-11-01T00:00:00+00:00",
        device=device_key(device),
        target="onnxruntime/cpu",
        model=model,
        family="llama",
        scheme=scheme,
        artifact="a",
        artifact_bytes=1,
        threads=8,
        import_s=0.1,
        load_s=0.1,
        prefill=(),
        decode=Decode(64, context, runs),
        baseline_bytes=1,
        loaded_bytes=1,
        peak_bytes=1,
        load_before=0.0,
        load_during=load,
        promise=Promise(ceiling_tps=ceiling_tps),
    )


def test_a_measurement_here_is_believed_and_brought_to_the_context(make, laptop_of):
    device = laptop_of(16)
    known = (benchmark(device, "meta-llama/llama-3.1-8b", "rtn-int4-g32", 7.0),)
    plan = make(device, "llama-3.1-8b", known, context=160)
    best = next(c for c in plan.candidates if c.scheme.name == "rtn-int4-g32" and c.target == "onnxruntime/cpu")
    assert best.expected.basis == "measured here" and best.expected.tps == pytest.approx(7.0)
    full = make(device, "llama-3.1-8b", known, context=8192)
    slower = next(c for c in full.candidates if c.scheme.name == "rtn-int4-g32" and c.target == "onnxruntime/cpu")
    assert slower.expected.tps < 7.0 and "brought from 160 to 8,192" in slower.expected.detail


def test_other_models_measured_here_teach_the_share(make, laptop_of):
    device = laptop_of(16)
    known = tuple(benchmark(device, "small", "rtn-int4-g32", t, 100.0) for t in (30.0, 40.0, 80.0))
    plan = make(device, "7B", known)
    best = next(c for c in plan.candidates if c.scheme.name == "rtn-int4-g32" and c.target == "onnxruntime/cpu")
    assert best.expected.basis == "learned"
    assert best.expected.tps == pytest.approx(0.4 * best.ceiling.decode_tps)
    eight = next(c for c in plan.candidates if c.scheme.name == "rtn-int8-g32" and c.target == "onnxruntime/cpu")
    assert eight.expected.basis == "prior"


KERNELS = {
    "MatMulNBits-4-g32": 20e9,
    "MatMulNBits-4-g128": 25e9,
    "MatMulNBits-8-g32": 15e9,
    "MatMul-f32": 4e9,
    "GroupQueryAttention": 2e9,
    "glue": 1e9,
    "layer": 4e-5,
    "step": 1e-4,
}


def test_kernels_measured_here_come_before_a_learned_share_and_after_a_measurement(make, laptop_of):
    rates = tuple(KernelRate("onnxruntime/cpu", name, Figure(v, "", "measured")) for name, v in KERNELS.items())
    device = laptop_of(16, kernels=rates)
    learned = benchmark(device, "small", "rtn-int4-g32", 40.0, 100.0)
    measured = benchmark(device, "llama-3.1-8b", "rtn-int4-g32", 2.5)

    def expected(*known):
        found = make(device, "llama-3.1-8b", known, context=160, targets=("onnxruntime/cpu",)).candidates
        return next(c.expected for c in found if c.scheme.name == "rtn-int4-g32")

    assert expected(learned).basis == "kernels measured here"
    assert 1 < expected(learned).tps < 20e9 / 7.5e9
    assert expected(learned, measured).basis == "measured here"


def test_a_benchmark_beside_other_work_counts_only_where_nothing_better_is_known(make, laptop_of):
    rates = tuple(KernelRate("onnxruntime/cpu", name, Figure(v, "", "measured")) for name, v in KERNELS.items())
    plain = laptop_of(16)
    quiet = benchmark(plain, "llama-3.1-8b", "rtn-int4-g32", 6.0, 10.0)
    busy = benchmark(plain, "llama-3.1-8b", "rtn-int4-g32", 1.0, 10.0, load=0.5)  # the later of the two
    other = benchmark(plain, "small", "rtn-int4-g32", 40.0, 100.0)
    busy_other = benchmark(plain, "small", "rtn-int4-g32", 10.0, 100.0, load=0.5)

    def expected(*known, device=plain):
        found = make(device, "llama-3.1-8b", known, context=160, targets=("onnxruntime/cpu",)).candidates
        return next(c.expected for c in found if c.scheme.name == "rtn-int4-g32")

    assert expected(quiet, busy).tps == pytest.approx(6.0)
    assert expected(busy, device=laptop_of(16, kernels=rates)).basis == "kernels measured here"
    assert expected(other, busy_other, busy).detail.startswith("40% of the ceiling, as in 1 benchmark ")
    alone = expected(busy)
    assert (alone.basis, alone.tps) == ("measured here", pytest.approx(1.0)) and "beside other work" in alone.detail
    assert expected(busy_other).basis == "learned"


def test_expected_speed_stays_below_the_ceiling(make, card_of):
    for c in make(card_of(24), "8B").candidates:
        assert c.expected is not None and c.decode_ceiling is not None
        assert 0 < c.expected.tps < c.decode_ceiling
