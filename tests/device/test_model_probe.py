"""Whole models are taken apart into rates: exactly where times are a sum, sanely where a measurement was disturbed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgeq import registry
from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.device import model_probe
from edgeq.device.model_probe import NARROW, SHALLOW, WIDE, Run, Times, Work, of_type, probe_models, taken_apart
from edgeq.device.probe_model import VOCAB, ProbeModel, Shape, grid_named
from edgeq.device.spec import Figure

WEIGHT, LAYER, MAC = 1 / 30e9, 50e-6, 1 / 4e9  # seconds, in decoding
FLOP, ONCE, PAIR = 1 / 120e9, 1 / 10e9, 1 / 15e9  # seconds, of a prompt
SPREAD = {"decode": 0.05, "prefill": 0.03}
SMALLEST = Work(few=4, more=8, many=16, tokens=2, repeats=1, weight_bytes=1)


def times(
    shape: Shape, contexts: Sequence[int], prompts: Sequence[int], weight: float = WEIGHT, passes: bool = False
) -> Times:
    """Of a runtime whose seconds are the sum that the module tells."""
    decode = {n: shape.weights * weight + shape.layers * LAYER + shape.attention * n * MAC for n in contexts}
    each = {n: ONCE * (math.ceil(n / 512) if passes else 1) for n in prompts}
    prefill = {n: shape.weights * (2 * n * FLOP + each[n]) + shape.attention * n * n / 2 * PAIR for n in prompts}
    return Times(shape, decode, prefill, dict(SPREAD))


def models() -> tuple[Times, Times, Times]:
    wide, narrow = replace(WIDE, layers=5), replace(NARROW, layers=40)
    return (
        times(wide, [40], [32, 160]),
        times(narrow, [40], [32, 160]),
        times(SHALLOW, [40, 1032], [32, 160, 512, 1024], passes=True),
    )


def test_a_sum_is_taken_apart_into_what_it_was_made_of() -> None:
    found = {name: figure.value for name, figure in taken_apart("Q4_0", *models()).items()}
    assert found == {
        "attention": pytest.approx(1 / MAC),
        "attention-prefill": pytest.approx(1 / PAIR),
        "layer": pytest.approx(LAYER),
        "decode-Q4_0": pytest.approx(1 / WEIGHT),
        "prefill-Q4_0": pytest.approx(1 / FLOP),
        "chunk-Q4_0": pytest.approx(1 / ONCE),
        "narrow-Q4_0": pytest.approx(1 / FLOP),
    }


def test_another_type_takes_what_is_known_of_the_rest() -> None:
    known = taken_apart("Q4_0", *models())
    found = of_type("Q8_0", times(replace(WIDE, layers=3), [40], [32, 160], weight=2 * WEIGHT), known)
    assert set(found) == {"decode-Q8_0", "prefill-Q8_0", "chunk-Q8_0"}
    assert found["decode-Q8_0"].value == pytest.approx(0.5 / WEIGHT)
    assert found["decode-Q8_0"].spread == 0.05 and found["prefill-Q8_0"].spread == 0.03


@pytest.mark.parametrize("slowed", [0, 1, 2])
@pytest.mark.parametrize("factor", [0.05, 20.0])
def test_a_disturbed_model_gives_no_rate_that_cannot_be(slowed: int, factor: float) -> None:
    made = list(models())
    one = made[slowed]
    for part in (one.decode, one.prefill):  # the last one measured stands out
        part[max(part)] *= factor
    found = taken_apart("Q4_0", *made)
    assert all(math.isfinite(f.value) and f.value > 0 for f in found.values())
    whole = made[0].shape.weights / made[0].decode[40]
    assert whole <= found["decode-Q4_0"].value <= 12 * whole


@pytest.mark.parametrize(
    ("kind", "bits", "group", "zero"),
    [("int4-g32", 4, 32, "int"), ("int8-row", 8, -1, "int"), ("Q4_K", 4, 32, "float"), ("F16", 16, -1, "none")],
)
def test_types_are_named(kind: str, bits: int, group: int, zero: str) -> None:
    grid = grid_named(kind)
    assert (grid.bits, grid.group_size, grid.zero) == (bits, group, zero)


@pytest.mark.parametrize("kind", ["int4-g32", "int8-row", "Q4_0", "Q4_1", "Q5_K", "Q6_K", "IQ4_NL"])
def test_weights_lie_around_nought_and_fill_the_grid(kind: str) -> None:
    made = ProbeModel(Shape(hidden=256, mlp=512, heads=4, kv_heads=2, layers=1), grid_named(kind))
    weight = made.load("layers.0.down")
    assert isinstance(weight, QuantizedTensor) and weight.shape == (256, 512)
    assert len(np.unique(weight.codes)) == weight.grid.levels
    values = weight.dequantize()
    assert np.isfinite(values).all() and 0 < np.abs(values).max() < 1
    assert abs(float(values.mean())) < 0.3 * float(values.std())


def test_a_shape_counts_what_the_models_tensors_hold() -> None:
    from edgeq.model.tensors import tensors

    shape = replace(NARROW, layers=3)
    assert shape.weights == sum(t.numel for t in tensors(shape.spec()) if t.linear)


class Session:
    """Answers at once and tells made-up times."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int, bool]] = []
        self.stats = SimpleNamespace(prefill_s=0.0, decode_s=0.0, new_tokens=0)

    def stream(self, ids: Sequence[int], *, max_tokens: int, temperature: float, reuse: bool) -> Iterator[str]:
        assert temperature == 0.0 and all(0 <= i < VOCAB for i in ids)
        self.asked.append((len(ids), max_tokens, reuse))
        late = len(self.asked) == 3  # other work came between: at the second prompt, read once
        self.stats = SimpleNamespace(
            prefill_s=len(ids) * (1.0 if late else 0.01), decode_s=0.02 * (max_tokens - 1), new_tokens=max_tokens
        )
        yield "a"


def test_a_disturbed_run_does_not_count_but_shows_in_the_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_probe, "_MOMENT", -1.0)  # one prompt a round
    session = Session()
    run = Run(session, NARROW, Work())
    assert session.asked == [(32, 12, False)]  # the warm-up
    for _ in range(3):
        run.round()
    found = run.times()
    assert found.prefill == {32: pytest.approx(0.32), 128: pytest.approx(1.28)}
    assert found.decode == {38: pytest.approx(0.02)}
    assert found.spread == {"decode": pytest.approx(0.0), "prefill": pytest.approx(99 / 2)}
    assert session.asked.count((32, 12, True)) == 6


def test_a_long_round_reads_and_writes_where_attention_shows() -> None:
    run = Run(Session(), NARROW, Work())
    run.long_round()
    found = run.times()
    assert set(found.prefill) == {1024, 2048} and set(found.decode) == {2054}


def test_types_beyond_the_time_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    wide, narrow, shallow = models()
    bench = SimpleNamespace(wide=lambda grid: wide, base=lambda grid: (wide, narrow, shallow))
    monkeypatch.setattr(model_probe, "_Bench", lambda *_: bench)
    kinds = ("Q4_0", "Q8_0", "Q4_K")
    both = probe_models(None, "gguf", "llamacpp/cpu", kinds)
    monkeypatch.setattr(model_probe, "SECONDS", -1.0)
    first = probe_models(None, "gguf", "llamacpp/cpu", kinds)
    assert {k.kernel for k in both} - {k.kernel for k in first} == {"decode-Q4_K", "prefill-Q4_K", "chunk-Q4_K"}
    assert all(k.target == "llamacpp/cpu" and k.figure.basis == "measured" for k in both)


@pytest.mark.parametrize(("runtime", "exporter", "kinds"), [("openvino", "openvino", 5), ("llamacpp", "gguf", 13)])
def test_every_type_is_timed_on_the_installed_runtime(
    runtime: str, exporter: str, kinds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real road: export, open, answer; with models and prompts as small as can be."""
    made: Any = registry.runtime(runtime)
    if made.missing():
        pytest.skip(f"{runtime} is not installed: {made.missing()}")
    monkeypatch.setattr(model_probe, "WIDE", Shape(hidden=256, mlp=512, heads=4, kv_heads=2, layers=1))
    monkeypatch.setattr(model_probe, "NARROW", Shape(hidden=64, mlp=64, heads=1, kv_heads=1, layers=1))
    monkeypatch.setattr(model_probe, "SHALLOW", Shape(hidden=64, mlp=64, heads=1, kv_heads=1, layers=1))
    monkeypatch.setattr(model_probe, "Work", lambda: SMALLEST)
    monkeypatch.setattr(model_probe, "SECONDS", math.inf)
    # llama.cpp's threads wait for each other by spinning: beside other tests two take far longer than one.
    monkeypatch.setattr("edgeq.runtimes.llamacpp.engine.probe_cpu", lambda: SimpleNamespace(cores=1))
    rates = {k.kernel: k.figure for k in made.probe()}
    assert all(math.isfinite(f.value) and f.value > 0 and f.basis == "measured" for f in rates.values())
    assert {"layer", "attention", "attention-prefill"} <= set(rates)
    for what in ("decode-", "prefill-"):
        assert sum(name.startswith(what) for name in rates) == kinds
    assert all(isinstance(f, Figure) and f.date for f in rates.values())
