"""Text while it comes: whole characters, decided stop strings."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.errors import EdgeqError
from edgeq.runtimes.streaming import Detokenizer, StopFilter


def pieces_of(tokenizer, ids):
    words = Detokenizer(tokenizer)
    return [words.push(i) for i in ids] + [words.flush()]


@settings(deadline=None)
@given(st.lists(st.integers(0, 258), max_size=40))
def test_pieces_together_are_the_decoded_whole(tokenizer, ids):
    assert "".join(pieces_of(tokenizer, ids)) == tokenizer.decode(ids)


@settings(deadline=None)
@given(st.text(max_size=20).filter(lambda t: "\ufffd" not in t))
def test_no_piece_holds_half_a_character(tokenizer, text):
    pieces = pieces_of(tokenizer, tokenizer.encode(text))
    assert "".join(pieces) == text
    assert not any("\ufffd" in p for p in pieces)


def test_a_character_appears_with_its_last_byte(tokenizer):
    ids = tokenizer.encode("a🙂b")
    assert pieces_of(tokenizer, ids) == ["a", "", "", "", "🙂", "b", ""]
    assert pieces_of(tokenizer, ids[:3]) == ["a", "", "", "\ufffd"]


def test_leading_spaces_of_a_sentencepiece_decoder_survive():
    from tokenizers import AddedToken, Tokenizer, decoders, models

    from edgeq.runtimes.text import Tokenizer as Ours

    inner = Tokenizer(models.BPE(vocab={"▁one": 0, "▁two": 1, "▁three": 2}, merges=[]))
    inner.decoder = decoders.Metaspace()
    inner.add_special_tokens([AddedToken("<x>", special=True)])
    words = Detokenizer(Ours(inner))
    assert [words.push(i) for i in (0, 1, 3, 3, 2, 0)] == ["one", " two", "", "", " three", " one"]


def naive(text, stops):
    """The answer ends before the stop string that is complete first (of those, the one that begins first)."""
    for end in range(len(text) + 1):
        starts = [end - len(s) for s in stops if text[:end].endswith(s)]
        if starts:
            return text[: min(starts)], True
    return text, False


@settings(max_examples=300)
@given(
    st.lists(st.text("abc", max_size=4), max_size=8),
    st.lists(st.text("abc", min_size=1, max_size=4), max_size=3),
)
def test_stop_strings_however_the_text_is_cut(pieces, stops):
    stop = StopFilter(stops)
    shown = "".join([stop.push(p) for p in pieces] + [stop.flush()])
    assert (shown, stop.stopped) == naive("".join(pieces), stops)


def test_text_is_held_back_only_while_it_may_be_a_stop():
    stop = StopFilter("END")
    assert [stop.push(p) for p in ("xE", "N", "e", "yEND", "z")] == ["x", "", "ENe", "y", ""]


def test_an_empty_stop_string_is_refused():
    with pytest.raises(EdgeqError, match="stop string"):
        StopFilter(["a", ""])
