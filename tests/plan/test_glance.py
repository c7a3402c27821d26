"""A model at a glance: the plan's own judgement, of three widths."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgeq.device.spec import Device
from edgeq.model.read import read_model
from edgeq.plan import Request, make_plan
from edgeq.plan.expected import Experience
from edgeq.plan.glance import Glance, facts, glance, rows, sentence, size_words

Make = Callable[..., Device]


def at(device: Device, model: str, **more: object) -> Glance:
    return glance(device, read_model(model), Request(), Experience(device, ()), **more)  # type: ignore[arg-type]


def test_each_width_is_the_plan_s_own_candidate(laptop_of: Make) -> None:
    device = laptop_of(12)
    seen = at(device, "llama-3.1-8b")
    plan = make_plan(device, read_model("llama-3.1-8b"), Request(), Experience(device, ()))
    judged = {(c.scheme.name, c.target): c for c in (*plan.candidates, *plan.rejected)}
    assert list(seen.widths) == [4, 8, 16]
    for c in seen.widths.values():
        assert c == judged[c.scheme.name, c.target]
    assert seen.widths[4].fits
    assert not seen.widths[16].fits


def test_the_words(laptop_of: Make) -> None:
    seen = at(laptop_of(12), "llama-3.1-8b")
    bits, weights, verdict, speed = rows(seen)[0]
    assert (bits, verdict) == ("4", "✓ fits")
    assert weights.endswith("GB")
    assert speed.endswith("tok/s")
    assert [row[2] for row in rows(seen)][2] == "✗ too big"
    assert sentence(seen).startswith("At 4 bits it takes")
    assert "writes at most" in sentence(seen)
    assert "writes" not in sentence(at(laptop_of(16, None), "llama-3.1-8b")), "no bandwidth, no speed"
    assert dict(facts(seen))["KV cache"].endswith("for 8,192 tokens")
    assert [size_words(at(laptop_of(), m)) for m in ("smollm2-135m", "llama-3.1-8b", "qwen3-30b-a3b")] == [
        "135M parameters",
        "8.03B parameters",
        "30.5B parameters, 3.35B active",
    ]


def test_too_big_says_by_how_much(laptop_of: Make) -> None:
    seen = at(laptop_of(4), "llama-3.1-70b")
    assert not seen.fits
    assert sentence(seen).startswith("Too big for this device: at 4 bits it needs 4")


def test_a_card_is_used_and_what_is_larger_is_split(card_of: Make) -> None:
    assert at(card_of(24), "llama-3.1-8b").widths[4].target.endswith("/cuda")
    assert at(card_of(8), "qwen3-32b", bits=(4,)).widths[4].verdict in ("fits", "tight", "offload")


@pytest.mark.parametrize("bits", [(4,), (8, 16)])
def test_only_what_is_asked_for(laptop_of: Make, bits: tuple[int, ...]) -> None:
    assert tuple(at(laptop_of(), "1B", bits=bits).widths) == bits
