"""What plots and tables of a plan are made of: the Pareto front, the roofline, orders, cells, obstacles, commands."""

from __future__ import annotations

import shlex

import pytest

from edgeq.cli.main import main
from edgeq.device import load_device
from edgeq.errors import EdgeqError
from edgeq.estimate.ceiling import decode_flop, prefill_flop
from edgeq.model.read import read_model
from edgeq.plan import Request, make_plan
from edgeq.plan.asking import changed, typed
from edgeq.plan.command import plan_command
from edgeq.plan.expected import Experience
from edgeq.plan.obstacle import obstacle
from edgeq.plan.points import pareto_front, roofline
from edgeq.plan.relief import nearest_way
from edgeq.plan.table import ORDERS, arranged, cells, place
from edgeq.plan.words import gigabytes, kl, rate
from edgeq.recipe import recipe_named


def planned(model="7B", device="ddr4-laptop", **asked):
    known = load_device(device)
    return make_plan(known, read_model(model), Request(**asked), Experience(known, []))


@pytest.fixture(scope="module")
def plan():
    return planned()


def test_the_front_is_what_no_candidate_beats_in_both(plan):
    front = pareto_front(plan.candidates)
    sizes, losses = [c.footprint.total for c in front], [c.quality.kld for c in front]
    assert sizes == sorted(set(sizes)) and losses == sorted(set(losses), reverse=True)
    for c in plan.candidates:
        beaten = any(o.footprint.total <= c.footprint.total and o.quality.kld < c.quality.kld for o in front)
        assert c in front or beaten or (c.quality.kld, c.footprint.total) >= (front[-1].quality.kld, 0)
        assert not any(
            o.footprint.total <= c.footprint.total and o.quality.kld < c.quality.kld
            for o in plan.candidates
            if c in front
        )
    assert pareto_front([]) == []


def test_the_roofline_of_decoding_is_the_bandwidth_and_of_a_prompt_the_arithmetic(plan):
    best = plan.recommended
    found = roofline(plan, best)
    assert found.limit.rate == pytest.approx(found.bandwidth * found.limit.intensity)
    assert found.decode.intensity == found.limit.intensity
    assert found.decode.rate < found.limit.rate
    assert found.prompt.rate == pytest.approx(found.matmul)
    assert found.prompt.intensity > found.matmul / found.bandwidth > found.limit.intensity
    left, ridge, right = found.roof
    assert left.rate == pytest.approx(found.bandwidth * left.intensity)
    assert ridge.rate == right.rate == found.matmul
    assert left.intensity < min(w.intensity for w in found.others)
    assert len(found.others) == sum(c.target == best.target for c in (*plan.candidates, *plan.rejected)) - 1


def test_several_sequences_share_what_is_read():
    one, four = (planned(batch=n, context=512, targets=("llamacpp/cpu",)) for n in (1, 4))
    a, b = (roofline(p, next(c for c in p.candidates if c.scheme.name == "gguf-q4_0")) for p in (one, four))
    assert 3 < b.limit.intensity / a.limit.intensity < 4
    assert b.limit.rate == pytest.approx(b.bandwidth * b.limit.intensity)


def test_where_the_bandwidth_is_unknown_there_is_no_roofline(plan):
    from dataclasses import replace

    best = plan.recommended
    assert roofline(plan, replace(best, ceiling=replace(best.ceiling, bandwidth=None, decode_tps=None))) is None


def test_without_a_matrix_rate_the_roof_only_rises(plan):
    from dataclasses import replace

    best = plan.recommended
    bound = replace(best.ceiling, matmul=None, prefill_tps=None)
    found = roofline(plan, replace(best, ceiling=bound))
    assert found.matmul is None and found.prompt is None
    assert [w.rate / w.intensity for w in found.roof] == pytest.approx([found.bandwidth] * 2)


def test_one_token_takes_a_prompt_of_one_and_attention_grows_with_what_is_cached():
    spec = read_model("7B")
    assert decode_flop(spec, 0) == pytest.approx(prefill_flop(spec, 1), rel=1e-4)
    heads = 4.0 * spec.layers[0].mixer.heads * spec.layers[0].mixer.head_dim * spec.n_layers
    assert decode_flop(spec, 1000) - decode_flop(spec, 0) == pytest.approx(1000 * heads)


def test_in_the_plan_s_order_what_edgeq_makes_comes_first():
    small = planned("smollm2-135m", objective="quality")
    assert any(c.not_yet for c in small.candidates[: small.candidates.index(small.recommended)]), "as judged alone"
    rows = arranged(small.candidates, "rank")
    made = [c for c in rows if c.not_yet is None]
    assert rows[0] is small.recommended
    assert rows[: len(made)] == made == [c for c in small.candidates if c.not_yet is None]
    assert rows[len(made) :] == [c for c in small.candidates if c.not_yet is not None]
    assert place(small.candidates, small.recommended) == 1
    assert all(cells(c)["verdict"] == f"not made: {c.not_yet}" for c in rows[len(made) :])
    backwards = arranged(small.candidates, "rank", reverse=True)
    assert backwards[: len(made)] == made[::-1] and all(c.not_yet for c in backwards[len(made) :])
    assert arranged(small.rejected, "rank") == list(small.rejected), "whether edgeq could make it says nothing there"


@pytest.mark.parametrize("order", [o for o in ORDERS if o != "rank"])
def test_orders(plan, order):
    rows = arranged(plan.candidates, order)
    assert sorted(map(id, rows)) == sorted(map(id, plan.candidates))
    values = {
        "scheme": lambda c: c.scheme.name,
        "on": lambda c: c.target,
        "gb": lambda c: c.footprint.total,
        "tps": lambda c: -c.expected.tps,
        "max": lambda c: -c.decode_ceiling,
        "kl": lambda c: c.quality.kld,
    }[order]
    assert [values(c) for c in rows] == sorted(values(c) for c in rows)
    assert [values(c) for c in arranged(plan.candidates, order, reverse=True)] == sorted(
        map(values, rows), reverse=True
    )


def test_unknown_speeds_are_last_in_either_direction(plan):
    from dataclasses import replace

    some = [replace(plan.candidates[0], expected=None), *plan.candidates[1:4]]
    for reverse in (False, True):
        assert arranged(some, "tps", reverse=reverse)[-1].expected is None
    assert cells(some[0])["tps"] == "?"


def test_cells_are_short_and_a_rejected_one_says_why(plan):
    assert cells(plan.recommended)["verdict"] == "fits"
    texts = [cells(c) for c in plan.rejected]
    assert {"too large"} < {t["verdict"] for t in texts}
    for t in (*texts, *map(cells, plan.candidates)):
        assert all(len(t[name]) <= 6 for name in ("gb", "share", "tps", "max", "kl"))


def test_figures_have_few_digits_and_no_exponent():
    assert [gigabytes(n) for n in (8.6e8, 9.994e9, 9.996e9, 9.99e10, 9.996e10, 1.234e12)] == [
        "0.86", "9.99", "10.0", "99.9", "100", "1,234",
    ]  # fmt: skip
    assert [kl(x) for x in (0.0, 0.0014, 0.0131, 0.763)] == ["0", "0.0014", "0.013", "0.76"]
    assert [rate(x) for x in (None, 2.44, 28.4)] == ["?", "2.4", "28"]


def test_whatever_edgeq_makes_has_a_recipe():
    for device in ("ddr4-laptop", "pixel-8", "rtx-3060"):
        p = planned("qwen2.5-0.5b", device)
        for c in (*p.candidates, *p.rejected):
            if c.not_yet is None:
                assert recipe_named("m", c.scheme.name).model == "m"


def test_obstacles_name_the_way_out(plan):
    assert obstacle(plan, plan.recommended) is None
    large = next(c for c in plan.rejected if c.short == "too large")
    assert "needs" in obstacle(plan, large).reason
    assert "fewer bits" in obstacle(plan, large).hint
    foreign = next(c for c in plan.candidates if c.not_yet)
    assert obstacle(plan, foreign).hint == f"Take {plan.recommended.scheme.name} on {plan.recommended.target}"
    slow = planned(min_tps=6.0)
    assert "fewer tokens/s" in obstacle(slow, next(c for c in slow.rejected if c.short == "too slow")).hint


def test_what_a_shorter_context_would_do_is_said_and_true():
    p = planned(context=32768, max_memory=6 * 10**9, targets=("llamacpp/cpu",))
    c = next(c for c in p.rejected if c.scheme.name == "gguf-q4_k_m")
    hint = obstacle(p, c).hint
    assert hint.startswith("It fits with a context of ")
    context = int(hint.split()[6].replace(",", ""))
    assert any(x.scheme is c.scheme or x.scheme == c.scheme for x in planned(
        context=context, max_memory=6 * 10**9, targets=("llamacpp/cpu",)).candidates)  # fmt: skip


def test_the_nearest_way_is_one_that_can_be_gone_and_has_no_options():
    assert nearest_way(planned("70B").relief).startswith("Smaller model: ")
    tight = planned(context=32768, max_memory=4 * 10**9)
    assert not tight.candidates
    assert "--" not in nearest_way(tight.relief)
    assert nearest_way(("No context is short enough", "More memory: 3 GB")) is None


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("context", "8192", 8192),
        ("context", " 32,768 ", 32768),
        ("batch", "4", 4),
        ("min_tps", "2.5", 2.5),
        ("min_tps", "", None),
        ("max_memory", "6GB", 6 * 10**9),
        ("max_memory", "", None),
        ("kv_dtype", "", None),
        ("kv_dtype", "int8", "int8"),
        ("objective", "speed", "speed"),
        ("targets", "", ()),
        ("targets", "llamacpp/cpu,openvino/cpu", ("llamacpp/cpu", "openvino/cpu")),
    ],
)
def test_what_is_typed(name, text, value):
    request = changed(Request(), name, text)
    assert getattr(request, name) == value
    assert changed(Request(), name, typed(request, name)) == request


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("context", ""), ("context", "12x"), ("context", "0"), ("context", "-1"), ("context", "1e3"), ("context", "²"),
        ("context", "9" * 400), ("batch", "0"), ("batch", "2,5"), ("min_tps", "fast"), ("min_tps", "nan"),
        ("min_tps", "-3"), ("max_memory", "much"), ("max_memory", "0"), ("max_memory", "9" * 400),
        ("kv_dtype", "f15"), ("objective", "best"), ("targets", "abacus/cpu"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_with_the_way_out(name, text):
    with pytest.raises(EdgeqError) as caught:
        changed(Request(), name, text)
    assert caught.value.hint


def test_the_command_asks_the_same(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEQ_HOME", str(tmp_path))
    monkeypatch.setattr("edgeq.cli.plan_report.print_plan", lambda plan, **_: seen.append(plan.request))
    seen: list[Request] = []
    for request in (
        Request(),
        Request(4096, 2, 1.5, 6_500_000_001, "q8_0", "size", ("llamacpp/cpu", "openvino/cpu")),
    ):
        words = shlex.split(plan_command("7B", "ddr4-laptop", request))
        with pytest.raises(SystemExit, match="0"):
            main(words[1:])
        assert seen.pop() == request
