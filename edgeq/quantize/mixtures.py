"""llama.cpp's file types as allocations: the grid of every tensor of a `Q4_K_M` model, whatever method finds the codes.

The rules are the estimator's (`edgeq.estimate.gguf`), so that what is planned is what is made.
"""

from __future__ import annotations

from edgeq.errors import EdgeqError
from edgeq.estimate.gguf import gguf_tensors
from edgeq.model.spec import ModelSpec
from edgeq.model.tensors import tensors
from edgeq.quantize.methods import find_method
from edgeq.recipe import Recipe
from edgeq.scheme import F16, F32, GGML_GRIDS, GGUF_BASE, Grid

PREFIX = "gguf-"


def mixture(spec: ModelSpec, file_type: str, *, imatrix: bool = False) -> dict[str, Grid]:
    """Tensor name -> grid, of every tensor of the model, as llama.cpp mixes types in a file of this type.

    Rows that don't fill a type's blocks take llama.cpp's fallback, norms and routers stay in single precision. Latent
    attention's `kv_b` stays in half precision: GGUF holds it as two matrices, one of them turned over, along whose rows
    no code of ours would lie.

    Args:
        file_type: `Q4_K_M`, by any spelling of its case.
        imatrix: the codes are found by calibrated importance, for which llama.cpp chooses a few types otherwise.

    Raises:
        EdgeqError: no such file type.
    """
    kind = file_type.upper()
    if kind not in GGUF_BASE:
        raise EdgeqError(f"no GGUF file type {file_type!r}", hint=f"Known: {', '.join(GGUF_BASE)}")
    types = {t.spec.name: t.ggml_type for t in gguf_tensors(spec, kind, imatrix)}
    return {t.name: grid_of_type(types.get(t.name, "F16")) for t in tensors(spec)}


def grid_of_type(ggml_type: str) -> Grid:
    """The grid of a llama.cpp tensor type; both half-precision types are ours of half precision.

    Raises:
        EdgeqError: a type that edgeq cannot make.
    """
    floats = {"F32": F32, "F16": F16, "BF16": F16}
    grid = GGML_GRIDS.get(ggml_type) or floats.get(ggml_type)
    if grid is None:
        raise EdgeqError(f"no grid makes {ggml_type}", hint=f"There is: {', '.join(GGML_GRIDS)}")
    return grid


def file_type_of(grid: str) -> str | None:
    """The llama.cpp file type that a recipe's grid names, if it names one.

    `q4_k_m` is a file type. `q4_1` is the block type for all linear layers alike; `gguf-q4_1` is the file type.
    """
    kind = grid.removeprefix(PREFIX).upper()
    if kind not in GGUF_BASE or (kind in GGML_GRIDS and not grid.startswith(PREFIX)):
        return None
    return kind


def mixture_of(recipe: Recipe, spec: ModelSpec) -> dict[str, Grid] | None:
    """The allocation that the recipe's grid asks for; None: its grid is no file type.

    Methods that learn from text stand for llama.cpp's importance matrix.
    """
    file_type = file_type_of(recipe.grid)
    if file_type is None:
        return None
    return mixture(spec, file_type, imatrix=bool(find_method(recipe.method).needs))
