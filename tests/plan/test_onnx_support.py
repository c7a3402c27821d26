"""How the plan rates grids on onnxruntime."""

from __future__ import annotations

import pytest

from edgeq.device.load_ref import load_device
from edgeq.plan.targets import TARGETS
from edgeq.scheme import GGML_GRIDS, Grid, Scheme, affine_grid, codebook_grid, gguf_scheme, int_grid


@pytest.mark.parametrize(
    ("grid", "level", "words"),
    [
        (int_grid(4, 32), "fast", ""),
        (int_grid(3, 128), "fast", "stored as 4-bit"),
        (int_grid(2, 16), "fast", "stored as 4-bit"),
        (int_grid(4, 40), "slow", "unpacked"),
        (affine_grid(4, 32), "fast", ""),
        (codebook_grid("nf4", 64), "slow", "unpacked"),
        (codebook_grid("ternary", 64), "fast", ""),
        (GGML_GRIDS["Q6_K"], "fast", "stored as 8-bit"),
    ],
)
def test_a_grid_is_fast_where_a_kernel_holds_its_numbers(grid: Grid, level: str, words: str) -> None:
    found = TARGETS["onnxruntime/cpu"].support(Scheme("x", "rtn", grid, grid), load_device("rtx-4090"))
    assert found.level == level
    assert words in found.reason and bool(words) == bool(found.reason)


def test_llama_cpp_s_mixtures_stay_its_own() -> None:
    found = TARGETS["onnxruntime/cpu"].support(gguf_scheme("Q4_K_M"), load_device("rtx-4090"))
    assert found.level == "refused"
