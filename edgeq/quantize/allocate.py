"""Allocation: mixed precision under a budget. Which grids a matrix may take, what each costs and loses, and the choice.

A recipe's budget is spent on all that has codes: linear layers, embedding and head. What a grid costs is what its
target stores, by the estimator's own arithmetic; the choice is a knapsack solved exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgeq.checkpoint.weights import Weights
from edgeq.errors import EdgeqError
from edgeq.estimate.formats import grid_bytes
from edgeq.estimate.gguf_header import header
from edgeq.model.spec import ModelSpec
from edgeq.model.tensors import TensorSpec, tensors
from edgeq.quantize.allocation.knapsack import Solution, Unit, solve
from edgeq.quantize.grids import refuses
from edgeq.quantize.methods import find_method
from edgeq.recipe import CODEBOOK_GRIDS, Recipe, parse_budget
from edgeq.registry import Progress
from edgeq.scheme import GGML_GRIDS, Grid, affine_grid, codebook_grid, int_grid

if TYPE_CHECKING:
    from edgeq.quantize.calibrate import Calibration

SAMPLE_TOKENS = 4096  # of the calibration text, for the sensitivity
FUSED = (("q", "k", "v"), ("gate", "up"))  # what vLLM packs into one matrix, of one precision
_BITS = {"onnx": (2, 4, 8), "openvino": (4, 8), "compressed_tensors": (4, 8)}
_GGML = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS", "IQ4_NL", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")


def allocation(
    source: Weights,
    recipe: Recipe,
    calibration: Calibration | None,
    progress: Progress | None = None,
    *,
    work: Path | None = None,
) -> dict[str, Grid]:
    """The grid of every matrix that has codes, under the recipe's budget.

    Raises:
        EdgeqError: the budget is below the least possible, or the method has no allocation.
    """
    kind = find_method(recipe.method).allocation
    if kind is None:
        raise EdgeqError(f"the method {recipe.method} allocates nothing")
    options = candidates(source.spec, recipe)
    if kind == "kurtosis":
        from edgeq.quantize.allocation.kurtosis import kurtosis_losses

        losses = kurtosis_losses(source, options)
    else:
        from edgeq.quantize.allocation.sensitivity import sensitivity

        assert calibration is not None
        method = find_method(recipe.method)
        losses = sensitivity(
            source, sample(calibration.tokens), options, method, seed=recipe.seed, work=work, progress=progress
        )
    chosen, _ = choose(source.spec, recipe, options, losses)
    return chosen


def candidates(spec: ModelSpec, recipe: Recipe) -> dict[str, tuple[Grid, ...]]:
    """Every matrix with codes -> the grids that the recipe's kind and target allow and its shape fits."""
    found = {}
    for t in tensors(spec):
        kind = recipe.embed_grid if t.role in ("embed", "head") else recipe.grid
        if not (t.linear or t.role == "embed"):
            continue
        group = recipe.embed_group_size if t.role in ("embed", "head") else recipe.group_size
        symmetric = recipe.embed_symmetric if t.role in ("embed", "head") else recipe.symmetric
        shape = (t.numel // t.shape[-1], t.shape[-1])
        grids = tuple(g for g in _grids(kind, group, symmetric, recipe.target) if refuses(g, shape) is None)
        if not grids:
            raise EdgeqError(f"no grid of the kind {kind} fits {t.name} of shape {list(t.shape)}")
        found[t.name] = grids
    return found


def choose(
    spec: ModelSpec,
    recipe: Recipe,
    options: Mapping[str, Sequence[Grid]],
    losses: Mapping[str, Mapping[Grid, float]],
) -> tuple[dict[str, Grid], Solution]:
    """The choice with the least sum of losses within the budget, and its proof."""
    by_name = {t.name: t for t in tensors(spec)}
    units, members, grids = [], [], []
    for names in _units(spec, options, recipe.target):
        common = [g for g in options[names[0]] if all(g in options[n] for n in names)]
        units.append(
            Unit(
                tuple(sum(_bytes(by_name[n], g, recipe.target) for n in names) for g in common),
                tuple(sum(losses[n][g] for n in names) for g in common),
            )
        )
        members.append(names)
        grids.append(common)
    solution = solve(units, budget_bytes(spec, recipe, options))
    chosen = {name: grids[k][solution.choices[k]] for k, names in enumerate(members) for name in names}
    return chosen, solution


def budget_bytes(spec: ModelSpec, recipe: Recipe, options: Mapping[str, Sequence[Grid]]) -> int:
    """The recipe's budget in bytes of everything that has codes; without one, what its uniform grids take."""
    by_name = {t.name: t for t in tensors(spec)}
    if recipe.budget is None:
        scheme = recipe.scheme
        uniform = {n: scheme.embed if by_name[n].role in ("embed", "head") else scheme.linear for n in options}
        return sum(_bytes(by_name[n], g, recipe.target) for n, g in uniform.items())
    amount, unit = parse_budget(recipe.budget)
    if unit == "bpw":
        return int(amount * sum(by_name[n].numel for n in options) / 8)
    if unit == "bytes":
        return int(amount) - _fixed_bytes(spec, recipe, options)
    from edgeq.device.profile import profile_device  # measured once and remembered

    bandwidth = profile_device().memory.read_bandwidth
    if bandwidth is None:
        raise EdgeqError("this device's memory bandwidth is not known", hint="Run `edgeq profile`, or give bytes")
    return int(bandwidth.value / amount)


def _fixed_bytes(spec: ModelSpec, recipe: Recipe, options: Mapping[str, Sequence[Grid]]) -> int:
    """What the file holds beside codes: norms and biases in single precision, a GGUF's header with its tokenizer."""
    plain = sum(4 * t.numel for t in tensors(spec) if t.name not in options)
    return plain + (header(spec).n_bytes if recipe.target == "gguf" else 0)


def sample(tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The first sequences, up to `SAMPLE_TOKENS` tokens in all, one at the least."""
    return tokens[: max(1, SAMPLE_TOKENS // tokens.shape[1])]


def _units(spec: ModelSpec, options: Mapping[str, Sequence[Grid]], target: str | None) -> list[tuple[str, ...]]:
    """Names that must share a precision: for vLLM (compressed-tensors) what it fuses, else every matrix by itself."""
    if target != "compressed_tensors":
        return [(n,) for n in options]
    found: dict[str, tuple[str, ...]] = {}
    for i in range(spec.n_layers):
        for roles in FUSED:
            names = tuple(n for r in roles if (n := f"layers.{i}.{r}") in options)
            found |= dict.fromkeys(names, names)
    return list(dict.fromkeys(found.get(n, (n,)) for n in options))


def _grids(kind: str, group: int, symmetric: bool, target: str | None) -> list[Grid]:
    if kind.upper() in GGML_GRIDS or target == "gguf":
        return [GGML_GRIDS[name] for name in _GGML]
    if kind in CODEBOOK_GRIDS:
        return [codebook_grid(kind.removesuffix("-double"), group, double=kind.endswith("-double")), int_grid(8, 32)]
    bits = _BITS.get(target or "", (2, 3, 4, 5, 6, 8))
    if kind == "affine":
        return [affine_grid(b, size) for b in bits for size in _sizes(group)]
    return [int_grid(b, size, symmetric=s) for b in bits for s in _forms(b, symmetric) for size in _sizes(group)]


def _sizes(group: int) -> tuple[int, ...]:
    """Groups half and twice as large beside the recipe's: bits alone are steps of four times the error, too coarse to
    spend a budget by. Rows stay rows."""
    return (group,) if group == -1 else tuple(s for s in (group // 2, group, 2 * group) if 16 <= s <= 256)


def _forms(bits: int, symmetric: bool) -> tuple[bool, ...]:
    """Symmetric or not. A zero point is worth its bits between two bits and eight: below, its own width counts for
    more, above, the error no longer matters (both measured)."""
    if symmetric or bits in (2, 8):
        return (True,)
    return (False,) if bits > 4 else (False, True)


def _bytes(t: TensorSpec, grid: Grid, target: str | None) -> int:
    runtime = {"onnx": "onnxruntime", "openvino": "openvino"}.get(target or "")
    return grid_bytes(t.numel // t.shape[-1], t.shape[-1], grid, runtime)
