"""Everything the picture in the architecture names prints as JSON and comes back the same."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgeq.device.spec import Cpu, Device, Figure, Memory
from edgeq.errors import EdgeqError
from edgeq.jsonable import from_json, to_json
from edgeq.model.spec import MLP, Attention, GatedDelta, LatentAttention, Layer, Mamba, ModelSpec, MoE, Rope

ROPE = Rope(1e4, 64, "longrope", (("short_factor", (1.0, 2.0)), ("factor", 4.0)), 4096)
LAYERS = (
    Layer(Attention(8, 2, 64, 0.125, ROPE, window=128), MLP(256)),
    Layer(LatentAttention(8, 512, None, 128, 64, 128, 0.07, ROPE), MoE(16, 2, 64)),
    Layer(GatedDelta(4, 8, 64, 64, 4), MLP(256, "gelu_tanh")),
    Layer(Mamba(2, 512, 16, 4, heads=8), None),
)
SPEC = ModelSpec("m", "mixed", 128, 1000, LAYERS, True, 4096, eos_ids=(1, 2))
DEVICE = Device(
    "d", "file", "linux", Cpu("c", "x86_64", 2, 4), Memory(8, 4, Figure(1e9, "B/s", "measured", spread=0.1))
)


@pytest.mark.parametrize("value", [SPEC, DEVICE], ids=["model", "device"])
def test_round_trip(value: Any) -> None:
    assert from_json(type(value), json.loads(json.dumps(to_json(value)))) == value


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"vocab_size": "many"}, "vocab_size"),
        ({"vocab_size": True}, "vocab_size"),
        ({"colour": 1}, "colour"),
        ({"norm_layout": "sideways"}, "norm_layout"),
        ({"layers": 3}, "layers"),
    ],
    ids=str,
)
def test_a_wrong_field_is_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(EdgeqError, match=named):
        from_json(ModelSpec, {**to_json(SPEC), **change})


def test_a_missing_field_is_named() -> None:
    data = to_json(SPEC)
    del data["hidden_size"]
    with pytest.raises(EdgeqError, match="hidden_size"):
        from_json(ModelSpec, data)
