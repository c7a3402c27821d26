"""KL divergence, agreement and perplexity against an independent oracle and against their own laws."""

from __future__ import annotations

import json
import math
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeq.jsonable import to_json
from edgeq.measure.divergence import ENDLESS, DivergenceMeter, divergence, log_softmax

LOGITS = hnp.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(2, 40)), elements=st.floats(-80, 80, width=32))


def random_logits(rows: int, vocab: int, seed: int, scale: float = 3.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((rows, vocab)) * scale).astype(np.float32)


@settings(deadline=None, max_examples=60)
@given(LOGITS, st.integers(0, 2**31))
def test_kl_and_perplexity_equal_torchs(reference: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    candidate = (reference + rng.standard_normal(reference.shape)).astype(np.float32)
    targets = rng.integers(0, reference.shape[1], reference.shape[0])
    found = divergence(reference, candidate, targets)
    p = torch.log_softmax(torch.from_numpy(reference).double(), -1)
    q = torch.log_softmax(torch.from_numpy(candidate).double(), -1)
    kl = torch.nn.functional.kl_div(q, p, log_target=True, reduction="none").sum(-1)
    assert found.mean_kl == pytest.approx(kl.mean().item(), rel=1e-9, abs=1e-12)
    assert found.max_kl == pytest.approx(kl.max().item(), rel=1e-9, abs=1e-12)
    for log_probs, ppl in ((q, found.perplexity), (p, found.reference_perplexity)):
        nll = torch.nn.functional.nll_loss(log_probs, torch.from_numpy(targets))
        assert ppl == pytest.approx(math.exp(nll.item()), rel=1e-9)


@settings(deadline=None, max_examples=60)
@given(LOGITS, st.floats(-1e4, 1e4))
def test_a_model_does_not_differ_from_itself_nor_from_its_shifted_logits(logits: np.ndarray, shift: float) -> None:
    same = divergence(logits, logits.astype(np.float64) + shift)
    assert same.max_kl < 1e-9
    assert same.broken == 0
    exact = divergence(logits, logits)
    assert (exact.max_kl, exact.top1, exact.top5) == (0.0, 1.0, 1.0)


@settings(deadline=None, max_examples=40)
@given(LOGITS, LOGITS)
def test_kl_is_never_negative_and_its_figures_are_ordered(a: np.ndarray, b: np.ndarray) -> None:
    rows, vocab = min(len(a), len(b)), min(a.shape[1], b.shape[1])
    found = divergence(a[:rows, :vocab], b[:rows, :vocab])
    assert 0 <= found.mean_kl <= found.max_kl
    assert found.p99_kl <= found.max_kl
    assert 0 <= found.top1 <= found.top5 <= 1


def test_batches_give_what_the_whole_gives() -> None:
    a, b = random_logits(257, 64, 0), random_logits(257, 64, 1)
    targets = np.random.default_rng(2).integers(-1, 64, 257)
    meter = DivergenceMeter()
    for start in range(0, 257, 50):
        part = slice(start, start + 50)
        meter.add(a[part], b[part], targets[part])
    pieces, whole = meter.result(), divergence(a, b, targets)
    assert pieces.mean_kl == pytest.approx(whole.mean_kl, rel=1e-12)
    assert (pieces.p99_kl, pieces.max_kl, pieces.top1, pieces.top5) == (
        whole.p99_kl,
        whole.max_kl,
        whole.top1,
        whole.top5,
    )
    assert pieces.perplexity == pytest.approx(whole.perplexity, rel=1e-12)


def test_agreement_counts_the_reference_choice_in_the_candidates_ranking() -> None:
    reference = np.array([[9, 0, 0, 0, 0, 0, 0]] * 4, np.float32)
    candidate = np.array(
        [[9, 1, 1, 1, 1, 1, 1], [5, 6, 1, 1, 1, 1, 1], [4, 9, 8, 7, 6, 1, 1], [0, 9, 8, 7, 6, 5, 4]], np.float32
    )
    found = divergence(reference, candidate)
    assert (found.top1, found.top5) == (0.25, 0.75)


def test_p99_is_the_hundredth_largest_of_ten_thousand_at_most() -> None:
    flat = np.zeros((1000, 2), np.float32)
    off = flat.copy()
    off[:10, 0] = 5.0  # one in a hundred
    assert divergence(flat, off).p99_kl == 0.0
    off[:11, 0] = 5.0
    assert divergence(flat, off).p99_kl == divergence(flat, off).max_kl > 0


def test_perplexity_of_a_uniform_guess_is_the_vocabulary() -> None:
    guess = np.zeros((5, 49), np.float32)
    assert divergence(guess, guess, np.arange(5)).perplexity == pytest.approx(49)
    assert divergence(guess, guess).perplexity is None
    assert divergence(guess, guess, np.full(5, -1)).perplexity is None


def test_extreme_logits_stay_exact() -> None:
    a = np.array([[1e4, 0.0], [3e38, -3e38]], np.float32)
    b = np.array([[1e4, 9999.0], [3e38, -3e38]], np.float32)
    assert divergence(a, b).mean_kl == pytest.approx(math.log(1 + math.exp(-1)) / 2)


def test_an_impossible_token_and_a_broken_model_are_endlessly_far() -> None:
    fine = np.array([[0.0, 1.0, 2.0]], np.float32)
    masked = np.array([[-np.inf, 1.0, 2.0]], np.float32)
    target = np.array([0])
    assert divergence(fine, masked, target).max_kl == ENDLESS
    assert divergence(fine, masked, target).perplexity is None
    assert divergence(masked, masked).max_kl == 0.0
    assert 0 < divergence(masked, fine).max_kl < 1
    for bad in (np.nan, np.inf):
        broken = divergence(fine, np.array([[bad, 1.0, 2.0]], np.float32), target)
        assert (broken.broken, broken.max_kl, broken.top1, broken.perplexity) == (1, ENDLESS, 0.0, None)
        json.dumps(to_json(broken), allow_nan=False)


def test_memory_stays_bounded_whatever_the_batch() -> None:
    a, b = random_logits(512, 32_768, 0), random_logits(512, 32_768, 1)  # 64 MiB each; float64 would be 128 each
    tracemalloc.start()
    divergence(a, b)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 110 << 20


def test_wrong_shapes_and_nothing_at_all_are_errors() -> None:
    with pytest.raises(ValueError, match="shapes"):
        divergence(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(ValueError, match="targets"):
        divergence(np.zeros((2, 3)), np.zeros((2, 3)), np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="no logits"):
        DivergenceMeter().result()


def test_log_softmax_sums_to_one() -> None:
    assert np.exp(log_softmax(random_logits(7, 100, 3))).sum(axis=1) == pytest.approx(np.ones(7))
