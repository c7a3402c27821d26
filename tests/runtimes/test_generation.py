"""The generation loop alone, on an engine that says what it is told to say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.errors import EdgeqError
from edgeq.runtimes.generation import Settings, Stats, common_prefix, generate_ids

EOS = 9


class Scripted:
    """After n tokens in all, the best next one is `script[n]`; records what it was fed."""

    threads = 0

    def __init__(self, script, context=100, chunk=4):
        self.script, self.context, self.chunk = script, context, chunk
        self.held, self.fed = [], []

    @property
    def position(self):
        return len(self.held)

    def prefill(self, ids):
        assert 1 <= len(ids) <= self.chunk
        self.held += ids
        self.fed.append(list(ids))
        return np.eye(10, dtype=np.float32)[self.script[len(self.held)]]

    def decode(self, token):
        return self.prefill([token])

    def rewind(self, position):
        assert position <= len(self.held)
        del self.held[position:]

    def logits(self, ids):
        raise AssertionError

    def close(self):
        raise AssertionError


def run(engine, ids, **options):
    extra = {k: options.pop(k) for k in ("cached", "cancelled") if k in options}
    stats = Stats()
    made = list(generate_ids(engine, ids, Settings.of(options), eos=frozenset({EOS}), stats=stats, **extra))
    return made, stats


def test_ends_at_eos_which_is_counted_but_not_given():
    made, stats = run(Scripted([0, 0, 0, 5, 6, EOS]), [1, 2, 3])
    assert made == [5, 6]
    assert (stats.finish, stats.new_tokens, stats.prompt_tokens) == ("eos", 3, 3)


def test_ends_at_max_tokens_without_computing_one_more():
    engine = Scripted([7] * 50)
    made, stats = run(engine, [1, 2], max_tokens=3)
    assert (made, stats.finish) == ([7, 7, 7], "length")
    assert engine.held == [1, 2, 7, 7]


def test_ends_when_the_context_is_full():
    engine = Scripted([7] * 50, context=6)
    made, stats = run(engine, [1, 2], max_tokens=None)
    assert (len(made), stats.finish, engine.position) == (5, "context", 6)


def test_prompt_goes_in_by_chunks():
    engine = Scripted([7] * 50)
    run(engine, list(range(9)), max_tokens=1)
    assert engine.fed == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]


def test_cancel_between_chunks_and_between_tokens():
    engine = Scripted([7] * 50)
    answers = iter([False, True])
    made, stats = run(engine, list(range(9)), cancelled=lambda: next(answers))
    assert (made, stats.finish, engine.position) == ([], "cancelled", 4)
    answers = iter([False, False, True])
    made, stats = run(engine, [1, 2], cancelled=lambda: next(answers))
    assert (made, stats.finish) == ([7, 7], "cancelled")


@given(st.lists(st.integers(0, 2), min_size=1, max_size=12), st.lists(st.integers(0, 2), min_size=1, max_size=12))
def test_the_shared_prefix_is_fed_once_and_the_record_stays_true(first, second):
    engine, cached = Scripted([7] * 50), []
    run(engine, first, cached=cached, max_tokens=3, reuse=True)
    assert cached == engine.held
    shared = min(common_prefix(cached, second), len(second) - 1)
    engine.fed.clear()
    _, stats = run(engine, second, cached=cached, max_tokens=1, reuse=True)
    assert stats.reused_tokens == shared
    assert sum(engine.fed, []) == second[shared:]  # noqa: RUF017
    assert cached == engine.held == second
    _, stats = run(engine, second, cached=cached, max_tokens=1)
    assert stats.reused_tokens == 0


def test_a_prompt_that_is_empty_or_too_long():
    for ids, message in (([], "prompt is empty"), ([1] * 7, "7 tokens, the context holds 6")):
        with pytest.raises(EdgeqError, match=message):
            run(Scripted([7] * 50, context=6), ids)


def test_rates():
    stats = Stats(prompt_tokens=30, reused_tokens=10, new_tokens=11, prefill_s=2.0, decode_s=5.0)
    assert (stats.prefill_tps, stats.decode_tps) == (10.0, 2.0)
    assert (Stats().prefill_tps, Stats().decode_tps) == (0.0, 0.0)
