"""Mixtures of llama.cpp's file types, against files that llama.cpp made and against the estimator's sizes."""

from __future__ import annotations

from collections import Counter

import pytest

from edgeq.errors import EdgeqError
from edgeq.estimate.ggml import type_bytes
from edgeq.estimate.gguf import tensor_bytes
from edgeq.model.spec import MLP, Attention, LatentAttention, Layer, ModelSpec, Rope
from edgeq.model.tensors import tensors
from edgeq.quantize.grids.superblock import refuses
from edgeq.quantize.mixtures import file_type_of, grid_of_type, mixture, mixture_of
from edgeq.recipe import Recipe
from edgeq.scheme import F16, F32, GGML_GRIDS, GGUF_BASE, Grid


def model(hidden: int, mlp: int, layers: int, *, tied: bool = True) -> ModelSpec:
    heads = hidden // 64
    mixer = Attention(heads, max(1, heads // 3), 64, 0.125, Rope(1e4, 64))
    return ModelSpec("m", "llama", hidden, 49152, (Layer(mixer, MLP(mlp)),) * layers, tied, 2048)


SMOLLM2 = model(576, 1536, 30)


def type_name(grid: Grid) -> str:
    return grid.ggml_type or {F32: "F32", F16: "F16"}[grid]


# Types of the tensors of SmolLM2-135M, counted in files of llama-quantize (2026) with an importance matrix.
MADE_BY_LLAMA_CPP = {
    "Q4_K_M": {"Q5_0": 166, "F32": 61, "Q4_K": 16, "Q8_0": 15, "Q6_K": 14},
    "Q5_K_M": {"Q5_1": 166, "F32": 61, "Q5_K": 16, "Q8_0": 15, "Q6_K": 14},
    "Q6_K": {"Q8_0": 181, "F32": 61, "Q6_K": 30},
    "Q4_1": {"Q4_1": 210, "F32": 61, "Q8_0": 1},
    "Q8_0": {"Q8_0": 211, "F32": 61},
}


@pytest.mark.parametrize("file_type", MADE_BY_LLAMA_CPP)
def test_types_are_those_of_a_file_that_llama_cpp_made(file_type: str) -> None:
    found = mixture(SMOLLM2, file_type, imatrix=True)
    assert Counter(map(type_name, found.values())) == MADE_BY_LLAMA_CPP[file_type]
    assert found["embed"] == GGML_GRIDS["Q8_0"] and found["final_norm"] == F32


@pytest.mark.parametrize("imatrix", [False, True])
@pytest.mark.parametrize("file_type", GGUF_BASE)
def test_every_tensor_has_a_grid_that_fits_and_the_planned_size(file_type: str, imatrix: bool) -> None:
    for spec in (SMOLLM2, model(768, 2048, 16, tied=False)):
        found = mixture(spec, file_type.lower(), imatrix=imatrix)
        n_bytes = 0
        for t in tensors(spec):
            grid = found[t.name]
            assert grid.super_size is None or refuses(grid, t.shape) is None
            n_bytes += -(-type_bytes(type_name(grid), t.numel) // 32) * 32
        assert n_bytes == tensor_bytes(spec, file_type, imatrix)


def test_a_layer_that_the_mixture_raises() -> None:
    found = mixture(model(768, 2048, 16, tied=False), "Q4_K_M")
    assert type_name(found["layers.0.down"]) == "Q6_K" and type_name(found["layers.2.down"]) == "Q4_K"
    assert type_name(found["layers.2.q"]) == "Q4_K" and type_name(found["head"]) == "Q6_K"


def test_a_matrix_that_gguf_splits_stays_in_half_precision() -> None:
    latent = LatentAttention(4, 64, None, 64, 32, 128, 0.1, Rope(1e4, 32))
    spec = ModelSpec("m", "deepseek2", 256, 512, (Layer(latent, MLP(512)),), False, 2048)
    found = mixture(spec, "Q4_K_M")
    assert found["layers.0.kv_b"] == F16
    assert set(found) == {t.name for t in tensors(spec)}


def test_names_of_file_types() -> None:
    assert file_type_of("q4_k_m") == file_type_of("gguf-q4_k_m") == "Q4_K_M"
    assert file_type_of("gguf-q4_1") == "Q4_1"  # and the block type alone is all linear layers alike:
    assert file_type_of("q4_1") is None and file_type_of("q4_k") is None and file_type_of("int") is None


def test_an_allocation_only_where_the_recipe_asks_for_one() -> None:
    assert mixture_of(Recipe("m", grid="q4_k"), SMOLLM2) is None
    assert mixture_of(Recipe("m"), SMOLLM2) is None


@pytest.mark.parametrize(("method", "imatrix"), [("rtn", False), ("gptq", True)])
def test_a_method_that_reads_text_stands_for_an_importance_matrix(method: str, imatrix: bool) -> None:
    recipe = Recipe("m", method=method)
    object.__setattr__(recipe, "grid", "gguf-q4_0")
    assert mixture_of(recipe, SMOLLM2) == mixture(SMOLLM2, "Q4_0", imatrix=imatrix)


def test_unknown_types_are_refused() -> None:
    with pytest.raises(EdgeqError, match="no GGUF file type 'Q9_Z'"):
        mixture(SMOLLM2, "Q9_Z")
    with pytest.raises(EdgeqError, match="no grid makes IQ2_S"):
        grid_of_type("IQ2_S")
