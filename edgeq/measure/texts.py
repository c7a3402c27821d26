"""The sequences that artifacts are verified on, of edgeq's own texts (`edgeq.model.texts`) or at random."""

from __future__ import annotations

import numpy as np

from edgeq.model.texts import built_in_texts, read_text

__all__ = ["built_in_texts", "chunks", "random_tokens", "read_text"]

SEED = 20_261_122


def random_tokens(vocab_size: int, count: int, seed: int = SEED) -> list[int]:
    """`count` token ids drawn evenly from the whole vocabulary: rows of the embedding that no text may reach."""
    return [int(i) for i in np.random.default_rng(seed).integers(0, vocab_size, count)]


def chunks(ids: list[int], length: int) -> list[list[int]]:
    """Consecutive pieces of at most `length` tokens; a last piece of one token, which predicts nothing, is dropped."""
    pieces = [ids[start : start + length] for start in range(0, len(ids), length)]
    return [piece for piece in pieces if len(piece) > 1]
