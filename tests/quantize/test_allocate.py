"""Mixed precision: what may be chosen, what it costs, and whether measured sensitivity is the truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgeq.checkpoint.weights import dense
from edgeq.decoder.torch_model import TorchModel
from edgeq.errors import EdgeqError
from edgeq.measure.divergence import DivergenceMeter
from edgeq.model.tensors import tensors
from edgeq.model.weights import open_source
from edgeq.quantize.allocate import budget_bytes, candidates, choose
from edgeq.quantize.allocation.kurtosis import kurtosis, kurtosis_losses
from edgeq.quantize.allocation.sensitivity import sensitivity
from edgeq.quantize.grids import find
from edgeq.quantize.methods import find_method
from edgeq.quantize.solvers.rtn import rounded
from edgeq.recipe import Recipe
from edgeq.scheme import int_grid


class Changed:
    """A source with one matrix replaced."""

    def __init__(self, source, name, value):
        self.spec, self._source, self._name, self._value = source.spec, source, name, value
        self.names, self.tokenizer_files = source.names, source.tokenizer_files

    def load(self, name):
        return self._value if name == self._name else dense(self._source.load(name))


def logits_of(weights, ids):
    model = TorchModel(weights)
    return np.concatenate([model.logits(row) for row in ids])


def test_sensitivity_is_the_divergence_that_rounding_one_matrix_causes(tiny):
    """Second order against the truth, on grids fine enough for second order to hold."""
    source = open_source(str(tiny()))
    rng = np.random.default_rng(0)
    ids = rng.integers(0, source.spec.vocab_size, (24, 48))
    grid = int_grid(5, 32)
    names = ["layers.0.q", "layers.0.v", "layers.0.o", "layers.1.gate", "layers.1.down", "embed"]
    found = sensitivity(source, ids, dict.fromkeys(names, (grid,)))
    reference = logits_of(source, ids)
    truth = {}
    for name in names:
        weight = dense(source.load(name))
        importance = None
        value = rounded(weight, find(weight, importance, grid), grid).dequantize()
        meter = DivergenceMeter()
        meter.add(reference, logits_of(Changed(source, name, value), ids))
        truth[name] = meter.result().mean_kl
    for name in names:
        # `o` reads averages over tokens: its errors do hang together, and the sum over single tokens misses that.
        assert 0.25 < found[name][grid] / truth[name] < 2.5, (name, found[name][grid], truth[name])


def test_sensitivity_is_reproducible(tiny):
    source = open_source(str(tiny()))
    ids = np.random.default_rng(0).integers(0, source.spec.vocab_size, (2, 16))
    grids = {"layers.0.q": (int_grid(4, 32), int_grid(8, 32))}
    torch.manual_seed(1)
    first = sensitivity(source, ids, grids, seed=3)
    torch.manual_seed(2)
    assert sensitivity(source, ids, grids, seed=3) == first
    assert first["layers.0.q"][int_grid(4, 32)] > first["layers.0.q"][int_grid(8, 32)] > 0


def test_error_feedback_counts_where_the_method_has_it(tiny):
    """Inputs that hang together leave GPTQ less to lose than rounding to nearest."""
    source = open_source(str(tiny()))
    ids = np.random.default_rng(0).integers(0, source.spec.vocab_size, (8, 48))
    grids = dict.fromkeys(("layers.1.q", "layers.1.down"), (int_grid(3, 32),))
    nearest, solved = sensitivity(source, ids, grids), sensitivity(source, ids, grids, find_method("gptq"))
    assert all(solved[n][g] < 0.9 * nearest[n][g] for n, found in grids.items() for g in found)


def test_groups_half_and_twice_as_large_may_be_chosen(tiny):
    spec = open_source(str(tiny())).spec
    found = candidates(spec, Recipe("m", group_size=32))["layers.0.q"]
    assert {g.group_size for g in found} == {16, 32, 64}
    assert {g.symmetric for g in found if g.bits == 4} == {True, False}
    rows = candidates(spec, Recipe("m", group_size=-1, symmetric=True))["layers.0.q"]
    assert {g.group_size for g in rows} == {-1} and all(g.symmetric for g in rows)


def test_the_budget_is_kept_and_used(tiny):
    source = open_source(str(tiny()))
    recipe = Recipe("m", method="omq", budget="5.5", embed_grid="int")
    options = candidates(source.spec, recipe)
    chosen, solution = choose(source.spec, recipe, options, kurtosis_losses(source, options))
    assert solution.exact
    assert set(chosen) == {t.name for t in tensors(source.spec) if t.linear or t.role == "embed"}
    budget = budget_bytes(source.spec, recipe, options)
    assert 0.9 * budget < solution.cost <= budget
    assert len({g.bits for g in chosen.values()}) > 1
    with pytest.raises(EdgeqError, match="budget"):
        tight = Recipe("m", method="omq", budget="1.5")
        choose(source.spec, tight, options, kurtosis_losses(source, options))


def test_targets_limit_the_choice(tiny):
    spec = open_source(str(tiny())).spec
    bits = {g.bits for grids in candidates(spec, Recipe("m", target="onnx")).values() for g in grids}
    assert bits == {2, 4, 8}
    kinds = {g.kind for grids in candidates(spec, Recipe("m", target="gguf")).values() for g in grids}
    assert kinds == {"gguf"}


def test_fused_projections_share_a_precision_where_the_target_fuses_them(tiny):
    source = open_source(str(tiny()))
    recipe = Recipe("m", method="omq", target="compressed_tensors", budget="6.5")
    options = candidates(source.spec, recipe)
    losses = kurtosis_losses(source, options)
    for grid in losses["layers.0.k"]:
        losses["layers.0.k"][grid] *= 1e6  # alone it would take the most bits
    chosen, _ = choose(source.spec, recipe, options, losses)
    assert chosen["layers.0.q"] == chosen["layers.0.k"] == chosen["layers.0.v"]
    assert chosen["layers.0.gate"] == chosen["layers.0.up"]


def test_kurtosis():
    rng = np.random.default_rng(0)
    assert kurtosis(rng.standard_normal((400, 400)).astype(np.float32)) == pytest.approx(3, abs=0.1)
    assert kurtosis(rng.standard_t(5, (400, 400)).astype(np.float32)) > 4
    assert kurtosis(np.ones((4, 4), np.float32)) == 0
