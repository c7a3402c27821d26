"""Calibration text from a file: plain text, or JSON lines of documents and conversations."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.errors import EdgeqError
from edgeq.measure.texts import read_text
from edgeq.model.tokenizer import prefix
from edgeq.registry import Progress

Ids = npt.NDArray[np.int64]

FIELDS = ("text", "content", "messages")
CHARACTERS = 16  # of a token, generously: a text longer than this is read in places only
WHAT = "reading calibration text"


@dataclass(frozen=True, slots=True)
class ReadText:
    """Attributes:
    tokens: int64 (sequences, length); fewer sequences than asked for where the text is short.
    used: how much of the text this is, in words.
    """

    tokens: Ids
    used: str


@dataclass(frozen=True, slots=True)
class Shape:
    """How much text is wanted, and the tokens each sequence begins with (the tokenizer's BOS, or none)."""

    sequences: int
    length: int
    start: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: Any, sequences: int, length: int) -> Shape:
        return cls(sequences, length, tuple(prefix(tokenizer)))

    @property
    def body(self) -> int:
        return self.length - len(self.start)

    def rows(self, pieces: list[list[int]]) -> Ids:
        """(sequences, length) of pieces that have `body` tokens each."""
        return np.array([[*self.start, *piece] for piece in pieces], np.int64).reshape(len(pieces), self.length)


def plain_text(path: Path, tokenizer: Any, shape: Shape, progress: Progress) -> ReadText:
    """Sequences spread evenly over a text file.

    Raises:
        EdgeqError: the file can't be read, or is too short for one sequence.
    """
    text = read_text(path)
    wanted = shape.sequences
    if len(text) > CHARACTERS * wanted * shape.length:
        pieces = list(_in_places(text, tokenizer, shape, progress))
    else:
        ids = tokenizer.encode(text, special=False)
        whole = [ids[at : at + shape.body] for at in range(0, len(ids) - shape.body + 1, shape.body)]
        pieces = [whole[i] for i in np.linspace(0, len(whole) - 1, min(wanted, len(whole))).round().astype(int)]
        _long_enough(pieces, shape, path, f"it has {len(ids):,} tokens")
        used = len(pieces) * shape.body / len(ids)
        return ReadText(shape.rows(pieces), f"{used:.0%} of the file's {len(ids):,} tokens")
    _long_enough(pieces, shape, path, "it is mostly blank")
    return ReadText(shape.rows(pieces), f"{len(pieces)} places of the file's {len(text):,} characters")


def json_lines(
    path: Path, tokenizer: Any, shape: Shape, progress: Progress, *, seed: int, ends: Iterable[int]
) -> ReadText:
    """Documents of a JSONL file in random order, one after the other with an end token between them.

    Args:
        ends: end tokens of the model; the first one separates documents.

    Raises:
        EdgeqError: the file can't be read, a line is no document, or there is too little text for one sequence.
    """
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    order = np.random.default_rng(seed).permutation(len(lines))
    documents = (document(lines[i], f"{path}, document {i + 1}") for i in order)
    tokens, used = packed(documents, tokenizer, shape, progress, ends=ends)
    _long_enough(tokens, shape, path, "all of its documents together are too short")
    return ReadText(tokens, f"{used:,} of {len(lines):,} documents")


def packed(
    documents: Iterable[Any], tokenizer: Any, shape: Shape, progress: Progress, *, ends: Iterable[int]
) -> tuple[Ids, int]:
    """Sequences from documents (texts, or lists of chat messages) laid end to end, and how many it took."""
    end = next(iter(ends), None)
    waiting: list[int] = []
    pieces: list[list[int]] = []
    count = 0
    for one in documents:
        if len(pieces) >= shape.sequences:
            break
        count += 1
        ids = tokenizer.encode(one if isinstance(one, str) else _rendered(one, tokenizer), special=False)
        waiting += ids
        if end is not None and ids and ids[-1] != end:
            waiting.append(end)
        while len(waiting) >= shape.body and len(pieces) < shape.sequences:
            pieces.append(waiting[: shape.body])
            del waiting[: shape.body]
        progress(len(pieces) * shape.length, shape.sequences * shape.length, WHAT)
    return shape.rows(pieces), count


def document(line: str | dict[str, Any], where: str, field: str | None = None) -> Any:
    """The text or the chat messages of one document.

    Args:
        field: the field that holds it; None: the first of `text`, `content`, `messages` that is there.

    Raises:
        EdgeqError: it is not JSON, or has none of the fields.
    """
    try:
        value = json.loads(line) if isinstance(line, str) else line
    except (ValueError, RecursionError) as error:
        raise EdgeqError("not a JSON object", where=where, hint="A .jsonl file has one JSON object a line") from error
    names = FIELDS if field is None else (field,)
    for name in names:
        found = value.get(name) if isinstance(value, dict) else None
        if isinstance(found, str) or (isinstance(found, list) and found and all(isinstance(m, dict) for m in found)):
            return found
    raise EdgeqError(f"no text in the field {' or '.join(names)}", where=where)


def _rendered(messages: list[dict[str, Any]], tokenizer: Any) -> str:
    text: str = tokenizer.render(messages, add_generation_prompt=False)
    return text


def _in_places(text: str, tokenizer: Any, shape: Shape, progress: Progress) -> Iterator[list[int]]:
    """One piece from the beginning of each of as many equal parts of the text as sequences are wanted."""
    part = len(text) // shape.sequences
    for i in range(shape.sequences):
        characters = 4 * shape.length
        found: list[int] = []
        while len(found) < shape.body and characters < 2 * part:
            characters *= 2
            found = tokenizer.encode(text[i * part :][: min(characters, part)], special=False)
        if len(found) >= shape.body:
            yield found[: shape.body]
        progress((i + 1) * shape.length, shape.sequences * shape.length, WHAT)


def _long_enough(pieces: Any, shape: Shape, path: Path, why: str) -> None:
    if not len(pieces):
        raise EdgeqError(
            f"too short for one calibration sequence of {shape.length} tokens: {why}",
            where=path,
            hint="Give more text, or a smaller --calibration-length",
        )
