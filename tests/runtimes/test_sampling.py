"""Sampling: its own rules, and transformers' processors as the oracle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeq.errors import EdgeqError
from edgeq.runtimes.sampling import Sampler, Sampling, candidates, draw, greedy, penalize

scores = st.floats(-30, 30, width=32)
logits_of_any_size = hnp.arrays(np.float32, st.integers(1, 60), elements=scores)


@given(logits_of_any_size)
def test_greedy_is_argmax_and_temperature_0(logits):
    assert greedy(logits) == int(np.argmax(logits))
    assert Sampler(Sampling(top_k=3, top_p=0.2, seed=1)).pick(logits) == int(np.argmax(logits))


@given(logits_of_any_size, st.integers(1, 70), st.integers(0, 1000))
def test_top_k_never_picks_outside_the_k_best(logits, k, seed):
    token = Sampler(Sampling(temperature=2.0, top_k=k, seed=seed)).pick(logits)
    assert np.count_nonzero(logits > logits[token]) < k


@given(st.integers(0, 1 << 30), st.integers(1, 6000), st.integers(1, 300), st.integers(1, 4))
def test_the_k_best_of_a_large_vocabulary(seed, size, k, decimals):
    logits = np.random.default_rng(seed).normal(0, 1, size).round(decimals).astype(np.float32)  # many ties
    ids, _ = candidates(logits, Sampling(temperature=1.0, top_k=k))
    np.testing.assert_array_equal(ids, np.argsort(-logits, kind="stable")[:k])


@given(logits_of_any_size, st.floats(0.01, 0.99))
def test_top_p_is_the_smallest_set_that_reaches_p(logits, p):
    ids, probabilities = candidates(logits, Sampling(temperature=1.0, top_p=p))
    every = np.exp(logits.astype(np.float64) - logits.max())
    every /= every.sum()
    kept = every[ids]
    assert kept.sum() >= p - 1e-5
    assert kept.sum() - kept.min() < p + 1e-5  # without its least probable token it would not reach p
    assert np.isclose(probabilities.sum(), 1)
    assert kept.min() >= np.delete(every, ids).max(initial=0)


@given(logits_of_any_size, st.floats(0.01, 1))
def test_min_p_is_a_share_of_the_best(logits, share):
    ids, _ = candidates(logits, Sampling(temperature=1.0, min_p=share))
    every = np.exp(logits.astype(np.float64) - logits.max())
    expected = np.flatnonzero(every >= share)
    close = np.abs(every - share) < 1e-5
    assert set(ids) - set(np.flatnonzero(close)) == set(expected) - set(np.flatnonzero(close))


@pytest.mark.parametrize("spread", [0.01, 1.0, 8.0])
@pytest.mark.parametrize("p", [0.1, 0.9, 0.999])
def test_top_p_over_a_large_vocabulary_takes_no_shortcut_in_the_result(spread, p):
    logits = np.random.default_rng(1).normal(0, spread, 5000).astype(np.float32)
    ids, probabilities = candidates(logits, Sampling(temperature=1.0, top_p=p))
    order = np.argsort(-logits, kind="stable")
    every = np.exp(logits[order].astype(np.float64) - logits.max())
    every /= every.sum()
    kept = int(np.count_nonzero(np.cumsum(every) - every < p))
    assert abs(len(ids) - kept) <= 1  # rounding may move the cut by one
    kept = len(ids)
    assert set(ids) == set(order[:kept])
    np.testing.assert_allclose(np.sort(probabilities), np.sort(every[:kept] / every[:kept].sum()), rtol=1e-4)


@given(st.integers(0, 10_000))
def test_same_seed_same_tokens(seed):
    logits = np.random.default_rng(0).normal(0, 1, 300).astype(np.float32)
    first, second = (Sampler(Sampling(temperature=1.0, top_p=0.95, seed=seed)) for _ in range(2))
    assert [first.pick(logits) for _ in range(20)] == [second.pick(logits) for _ in range(20)]


def test_tokens_are_drawn_as_often_as_they_are_probable():
    ids, probabilities = np.array([4, 7, 9]), np.array([0.5, 0.3, 0.2])
    rng = np.random.default_rng(8)
    drawn = np.array([draw(ids, probabilities, rng) for _ in range(20_000)])
    for token, p in zip(ids, probabilities, strict=True):
        # five standard deviations of a binomial share
        assert abs(np.mean(drawn == token) - p) < 5 * np.sqrt(p * (1 - p) / 20_000)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 1 << 30).map(lambda n: np.random.default_rng(n).normal(0, 2, 50).astype(np.float32)),
    st.lists(st.integers(0, 49), min_size=1, max_size=20),
    st.floats(0.5, 2),
    st.floats(0.2, 3),
    st.integers(1, 60),
    st.floats(0.05, 0.99),
    st.floats(0.01, 0.5),
)
def test_the_chain_equals_transformers(logits, seen, penalty, temperature, k, p, share):
    import torch
    from transformers import generation as hf

    steps = [
        hf.RepetitionPenaltyLogitsProcessor(penalty),
        hf.TemperatureLogitsWarper(temperature),
        hf.TopKLogitsWarper(k),
        hf.TopPLogitsWarper(p),
        hf.MinPLogitsWarper(share),
    ]
    found = torch.tensor(logits)[None].clone()
    penalized = steps[0](torch.tensor([seen]), found.clone())[0].numpy()
    np.testing.assert_allclose(penalize(logits, np.unique(seen), penalty), penalized, rtol=1e-6)
    for step in steps:
        found = step(torch.tensor([seen]), found)
    expected = torch.softmax(found[0].double(), -1).numpy()
    # On an edge, float32 there and float64 here may put a token on either side.
    assume(not _on_an_edge(penalized / temperature, k, p, share))
    sampling = Sampling(temperature, k, p, share)
    ids, probabilities = candidates(penalize(logits, np.unique(seen), penalty), sampling)
    ours = np.zeros(50)
    ours[ids] = probabilities
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def _on_an_edge(scores, k, p, share):
    order = np.sort(scores.astype(np.float64))[::-1][:k]
    weights = np.exp(order - order[0])
    masses = np.cumsum(weights) / weights.sum()
    return min(np.abs(masses - p).min(), np.abs(weights - share).min()) < 1e-5


def test_penalty_counts_generated_tokens_too():
    logits = np.array([2.0, 1.9, -1.0], np.float32)
    sampler = Sampler(Sampling(repetition_penalty=1.2), seen=[2])
    assert [sampler.pick(logits) for _ in range(2)] == [0, 1]
    np.testing.assert_array_equal(logits, np.array([2.0, 1.9, -1.0], np.float32))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bad", [[1, np.nan, 2], [np.inf, 0, 0], [-np.inf] * 3])
def test_broken_logits_are_refused(bad, temperature):
    with pytest.raises(EdgeqError, match="not finite"):
        Sampler(Sampling(temperature=temperature)).pick(np.array(bad, np.float32))


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": -0.1},
        {"repetition_penalty": 0.0},
        {"seed": -1},
    ],
)
def test_values_out_of_range(options):
    with pytest.raises(EdgeqError, match=f"{next(iter(options))} is .* it must be"):
        Sampling(**options)
