"""Mixtures of experts and attention sinks in the torch backend, against transformers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgeq.decoder.torch_model import TorchModel
from edgeq.model.spec import Attention, MoE

MIXTURES = ("mixtral", "qwen3_moe", "qwen2_moe", "olmoe", "gpt_oss", "granitemoe")
IDS = np.random.default_rng(7).integers(3, 160, 28).tolist()
MANY = np.random.default_rng(8).integers(3, 160, (6, 60)).tolist()
TOLERANCE = 1e-4


@pytest.mark.parametrize("name", MIXTURES)
def test_torch_backend_equals_transformers(tiny, name):
    model = tiny(name)
    for ids in (IDS[:1], IDS[:12], *MANY):
        theirs = model.reference(ids)
        assert np.ptp(theirs) > 1.0
        np.testing.assert_allclose(TorchModel(model.weights).logits(ids), theirs, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", MIXTURES)
def test_prefill_then_decode_equals_one_pass(tiny, name):
    model = TorchModel(tiny(name).weights)
    cache = model.start()
    steps = [model.step(IDS[:7], cache), *(model.step([i], cache) for i in IDS[7:])]
    np.testing.assert_allclose(np.concatenate(steps), model.logits(IDS), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", MIXTURES)
def test_every_expert_is_somebodys_choice(tiny, name):
    """Else an expert that is read wrongly would not show."""
    from edgeq.decoder.torch_ops import TorchOps

    seen: set[tuple[int, int]] = set()

    class Watched(TorchOps):
        def expert(self, x: Any, layer: int, e: int, spec: MoE) -> Any:
            seen.add((layer, e))
            return super().expert(x, layer, e, spec)

    model = TorchModel(tiny(name).weights)
    model._ops = Watched(tiny(name).weights)
    for ids in MANY:
        model.logits(ids)
    mixtures = [(i, x.ffn) for i, x in enumerate(model.spec.layers) if isinstance(x.ffn, MoE)]
    assert seen == {(i, e) for i, ffn in mixtures for e in range(ffn.experts)}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("mixtral", {"routing": "all"}),
        ("mixtral", {"active": 1}),
        ("qwen3_moe", {"routing": "all"}),
        ("qwen2_moe", {"shared_gate": False}),
        ("qwen2_moe", {"shared_intermediate": 0}),
        ("qwen2_moe", {"routing": "top"}),
        ("gpt_oss", {"limit": None}),
        ("gpt_oss", {"limit": 1.0}),
        ("gpt_oss", {"alpha": 1.0}),
        ("gpt_oss", {"router_bias": False}),
        ("gpt_oss", {"expert_bias": False}),
        ("gpt_oss", {"sinks": False}),
    ],
)
def test_switching_off_any_one_feature_moves_the_logits(tiny, name, change):
    weights = tiny(name).weights
    spec = weights.spec
    layers = []
    for layer in spec.layers:
        part = layer.mixer if "sinks" in change else layer.ffn
        if isinstance(part, (Attention if "sinks" in change else MoE)):
            part = replace(part, **change)
        layers.append(replace(layer, mixer=part) if "sinks" in change else replace(layer, ffn=part))
    other = _Otherwise(weights, replace(spec, layers=tuple(layers)))
    assert np.abs(TorchModel(other).logits(IDS) - TorchModel(weights).logits(IDS)).max() > 1e-3


class _Otherwise:
    """The same tensors under another description."""

    def __init__(self, weights: Any, spec: Any) -> None:
        self.spec, self.load = spec, weights.load
        self.names, self.tokenizer_files = weights.names, weights.tokenizer_files
