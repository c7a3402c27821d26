"""The text that artifacts are verified on: short and varied (prose, code, dialogue, JSON, arithmetic, languages)."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np

from edgeq.errors import EdgeqError

SEPARATOR = "\n===\n"
SEED = 20_261_122


def built_in_texts() -> list[str]:
    """The passages that come with edgeq, about 600 tokens together."""
    return (files("edgeq.measure") / "texts.txt").read_text("utf-8").strip().split(SEPARATOR)


def read_text(path: Path) -> str:
    """A user's text.

    Raises:
        EdgeqError: it can't be read, is not UTF-8, or is empty.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise EdgeqError(f"cannot read the text: {error.strerror or error}", where=path) from error
    except UnicodeDecodeError as error:
        raise EdgeqError("the text is not UTF-8", where=path, hint="Convert it first") from error
    if not text.strip():
        raise EdgeqError("the text is empty", where=path)
    return text


def random_tokens(vocab_size: int, count: int, seed: int = SEED) -> list[int]:
    """`count` token ids drawn evenly from the whole vocabulary: rows of the embedding that no text may reach."""
    return [int(i) for i in np.random.default_rng(seed).integers(0, vocab_size, count)]


def chunks(ids: list[int], length: int) -> list[list[int]]:
    """Consecutive pieces of at most `length` tokens; a last piece of one token, which predicts nothing, is dropped."""
    pieces = [ids[start : start + length] for start in range(0, len(ids), length)]
    return [piece for piece in pieces if len(piece) > 1]
