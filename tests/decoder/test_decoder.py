"""What the decoder and its torch backend refuse, and the cache of the reference model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgeq.decoder.decoder import check_supported, decoder
from edgeq.decoder.torch_model import TorchModel
from edgeq.errors import EdgeqError
from edgeq.model.spec import MLP, Attention, Layer, ModelSpec, MoE

ATTENTION = Attention(4, 2, 16, 0.25)
SPEC = ModelSpec("m", "made_up", 64, 160, (Layer(ATTENTION, MLP(96)),), True, 64)


@pytest.mark.parametrize(
    ("layer", "word"),
    [
        (Layer(ATTENTION, MoE(8, 2, 96)), "experts"),
        (Layer(replace(ATTENTION, sinks=True), MLP(96)), "sinks"),
        (Layer(replace(ATTENTION, gated=True), MLP(96)), "gated attention"),
        (Layer(ATTENTION, None), "no feed-forward"),
        (Layer(ATTENTION, MoE(8, 2, 96, routing="sigmoid")), "sigmoids"),
    ],
)
def test_layers_that_can_be_planned_but_not_run(layer, word):
    with pytest.raises(EdgeqError, match=f"layer 1 has.*{word}"):
        check_supported(replace(SPEC, layers=(SPEC.layers[0], layer)))


@pytest.mark.parametrize(
    ("layer", "ability"),
    [(Layer(ATTENTION, MoE(8, 2, 96)), "experts"), (Layer(replace(ATTENTION, sinks=True), MLP(96)), "sinks")],
)
def test_a_backend_is_asked_only_for_what_it_says_it_has(layer, ability):
    spec = replace(SPEC, layers=(SPEC.layers[0], layer))
    check_supported(spec, frozenset({ability}))

    class Dense:
        """A backend of dense models."""

    with pytest.raises(EdgeqError, match=ability):
        decoder(Dense(), spec, "ids")


@pytest.mark.parametrize("ids", [[], [160], [-1, 3]])
def test_ids_outside_the_vocabulary(tiny, ids):
    with pytest.raises(EdgeqError):
        TorchModel(tiny("llama").weights).logits(ids)


def test_rewound_cache_continues_as_if_the_rest_had_not_been(tiny):
    model = TorchModel(tiny("mistral").weights)
    cache = model.start()
    model.step([5, 6, 7, 8, 9], cache)
    cache.rewind(3)
    found = model.step([40, 41], cache)
    np.testing.assert_allclose(found, model.logits([5, 6, 7, 40, 41])[3:], atol=1e-5, rtol=0)
    cache.rewind(0)
    np.testing.assert_allclose(model.step([5, 6], cache), model.logits([5, 6]), atol=1e-5, rtol=0)
