"""The ranking, the targets, and what a plan as a whole keeps to."""

from __future__ import annotations

import json

import pytest

from edgeq.device.spec import Accelerator
from edgeq.jsonable import to_json
from edgeq.plan.targets import TARGETS


def test_what_fits_is_ranked_and_what_does_not_says_why(make, laptop_of):
    plan = make(laptop_of(8), "8B")
    assert plan.candidates and plan.rejected
    assert all(c.footprint.total <= c.capacity for c in plan.candidates)
    assert all(c.reasons and c.short for c in plan.rejected)
    large = [c for c in plan.rejected if c.short == "too large"]
    assert large and all(c.footprint.total > c.capacity and "more than the" in c.reasons[0] for c in large)


@pytest.mark.parametrize("objective", ["quality", "speed", "size", "balanced"])
def test_objectives_order_as_they_say(make, laptop_of, objective):
    found = make(laptop_of(24), "7B", objective=objective).candidates
    first, others = found[0], [c for c in found if c.quality.kld <= 0.3]
    if objective == "quality":
        assert first.quality.kld == min(c.quality.kld for c in found)
    elif objective == "speed":
        assert first.expected.tps == max(c.expected.tps for c in others)
    elif objective == "size":
        assert first.footprint.total == min(c.footprint.total for c in others)
    else:
        assert first.quality.kld < 0.1 and first.expected.tps > 0.4 * max(c.expected.tps for c in others)


def test_min_tps_keeps_only_the_quick_ones(make, laptop_of):
    plan = make(laptop_of(32), "7B", min_tps=5)
    assert plan.candidates and all(c.expected.tps >= 5 for c in plan.candidates)


def test_a_graphics_card_is_preferred_for_its_prompts(make):
    """Where processor and card read the same memory, decoding is much the same and the prompt decides."""
    from edgeq.device.catalog import catalog_device

    for device, target in (("dgx-spark", "llamacpp/cuda"), ("m1-max", "llamacpp/metal")):
        assert make(catalog_device(device), "8B").candidates[0].target == target
    assert make(catalog_device("snapdragon-8-elite"), "3B").candidates[0].target == "llamacpp/cpu"


def test_figures_belong_to_their_target(make, card_of):
    """A processor's candidates are bounded by its memory, a card's by its own, in whatever order targets are judged."""
    device = card_of(24)
    for names in (("llamacpp/cpu", "llamacpp/cuda"), ("llamacpp/cuda", "llamacpp/cpu"), ()):
        for model in ("8B", "30B-A3B", "8B"):
            for c in make(device, model, targets=names).candidates:
                on_card = not c.target.endswith("/cpu")
                assert c.ceiling.bandwidth == (device.accelerators[0] if on_card else device.memory).read_bandwidth
                read = c.ceiling.weight_bytes_read + c.ceiling.kv_bytes_read
                assert c.ceiling.decode_tps == pytest.approx((1000e9 if on_card else 50e9) / read)


def test_targets_need_their_hardware(make, laptop_of):
    absent = dict(make(laptop_of(16), "7B").absent)
    assert "no NVIDIA GPU here" in absent["llamacpp/cuda"]
    assert "Android" in absent["onnxruntime/android"]
    phone = make(laptop_of(8, os="Android 15"), "0.5B")
    assert {c.target for c in phone.candidates} == {"onnxruntime/android", "llamacpp/cpu"}


def test_an_npu_takes_only_its_own_scheme(make, laptop_of):
    device = laptop_of(32, accelerators=(Accelerator("npu", "Intel AI Boost"),))
    plan = make(device, "1B", targets=("openvino/npu",))
    assert [c.scheme.name for c in plan.candidates] == ["gptq-int4-g128-sym"]
    other = laptop_of(32, accelerators=(Accelerator("npu", "Hexagon NPU"),))
    assert "not an Intel NPU" in dict(make(other, "1B").absent)["openvino/npu"]


def test_kv_dtype_is_the_runtimes_where_it_cannot_have_another(make, laptop_of):
    plan = make(laptop_of(32), "7B", kv_dtype="bf16")
    onnx = next(c for c in plan.candidates if c.target == "onnxruntime/cpu")
    assert any("keeps its cache in f32" in r for r in onnx.reasons)
    plan = make(laptop_of(32), "7B", kv_dtype="int8")
    used = {c.target: c.footprint.kv_dtype for c in plan.candidates}
    assert used == {"onnxruntime/cpu": "int8", "openvino/cpu": "int8", "llamacpp/cpu": "q8_0"}
    same = next(c for c in plan.candidates if c.target == "llamacpp/cpu")
    assert not any("keeps its cache" in r for r in same.reasons)  # q8_0 is what llama.cpp calls 8 bits


def test_a_context_beyond_the_models_is_noted(make, laptop_of):
    plan = make(laptop_of(64), "llama-2-7b", context=16384)
    assert any("beyond the 4,096 tokens" in n for n in plan.notes)


def test_a_plan_is_json(make, card_of):
    text = json.dumps(to_json(make(card_of(8), "30B-A3B")), allow_nan=False)
    assert json.loads(text)["request"]["context"] == 8192


def test_same_input_same_plan(make, laptop_of):
    assert make(laptop_of(16), "7B") == make(laptop_of(16), "7B")


def test_every_target_judges_every_scheme(laptop_of):
    from edgeq.plan.candidates import schemes

    for target in TARGETS.values():
        for scheme in schemes():
            support = target.support(scheme, laptop_of())
            assert support.level == "fast" or support.reason
