"""How the plan rates grids on OpenVINO."""

from __future__ import annotations

import pytest

from edgeq.device.load_ref import load_device
from edgeq.estimate.formats import weight_bytes
from edgeq.model.read import read_model
from edgeq.plan.targets import TARGETS
from edgeq.scheme import (
    F16,
    F32,
    GGML_GRIDS,
    Grid,
    Scheme,
    affine_grid,
    codebook_grid,
    gguf_scheme,
    int_grid,
    named_scheme,
)


@pytest.mark.parametrize(
    ("grid", "level", "words"),
    [
        (int_grid(4, 32), "fast", ""),
        (int_grid(3, 128), "fast", "stored as 4-bit"),
        (int_grid(6, 32), "fast", "stored as 8-bit"),
        (int_grid(2, 64), "slow", "unpacked"),
        (int_grid(4, 16), "slow", "groups of 16"),
        (affine_grid(4, 32), "fast", ""),
        (codebook_grid("nf4", 64), "fast", ""),
        (codebook_grid("iq4_nl", 32), "fast", "stored as 8-bit"),
        (codebook_grid("ternary", 64), "slow", "unpacked"),
        (GGML_GRIDS["Q4_0"], "fast", ""),
        (GGML_GRIDS["Q4_K"], "fast", ""),
        (GGML_GRIDS["Q6_K"], "slow", "groups of 16"),
        (F16, "fast", ""),
        (F32, "slow", "twice the bytes"),
    ],
)
def test_a_grid_is_fast_where_a_type_holds_its_numbers(grid: Grid, level: str, words: str) -> None:
    found = TARGETS["openvino/cpu"].support(Scheme("x", "rtn", grid, grid), load_device("ddr5-desktop"))
    assert found.level == level
    assert words in found.reason and bool(words) == bool(found.reason)


def test_llama_cpp_s_mixtures_stay_its_own() -> None:
    for target in ("openvino/cpu", "openvino/gpu", "openvino/npu"):
        assert TARGETS[target].support(gguf_scheme("Q4_K_M"), load_device("ddr5-desktop")).level == "refused"


@pytest.mark.parametrize(
    ("grid", "level"),
    [
        (int_grid(4, 128, symmetric=True), "fast"),
        (int_grid(3, -1, symmetric=True), "fast"),
        (int_grid(4, 128), "refused"),
        (affine_grid(4, 128), "refused"),  # a second product, which its compiler was not seen to take
        (GGML_GRIDS["Q4_0"], "refused"),
        (codebook_grid("nf4", 128), "refused"),
    ],
)
def test_the_npu_takes_what_is_stored_as_symmetric_int4(grid: Grid, level: str) -> None:
    found = TARGETS["openvino/npu"].support(Scheme("x", "rtn", grid, grid), load_device("ddr5-desktop"))
    assert found.level == level


def test_three_bits_are_as_large_as_four() -> None:
    """They lose more for the same bytes."""
    spec = read_model("1B")
    three, four = (named_scheme(f"gptq-int{bits}-g128") for bits in (3, 4))
    assert weight_bytes(spec, three, "openvino/cpu") == weight_bytes(spec, four, "openvino/cpu")


@pytest.mark.parametrize("objective", ["quality", "speed", "size", "balanced"])
def test_no_plan_puts_three_bits_before_four_of_the_same_size(make, laptop_of, objective: str) -> None:
    plan = make(laptop_of(16), "3B", targets=("openvino/cpu",), objective=objective)
    names = [c.scheme.name for c in plan.candidates]
    assert names.index("autoround-int4-g128") < names.index("gptq-int3-g128")
