"""Calibration: the text that methods learn from, as token ids, and the account of where it came from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq import __version__
from edgeq.checkpoint.weights import Weights
from edgeq.errors import EdgeqError
from edgeq.files import write_json
from edgeq.jsonable import to_json
from edgeq.model.tokenizer import open_tokenizer, prefix
from edgeq.quantize.calibrate_needs import shape_of
from edgeq.recipe import Recipe
from edgeq.registry import Progress

Ids = npt.NDArray[np.int64]

FILE = "calibration.json"  # in the work folder of a run
OWN = "self"
HUB = "hub:"


@dataclass(frozen=True, slots=True)
class Calibration:
    """Attributes:
    tokens: int64 (sequences, length).
    facts: `kind` (`self`, `text`, `jsonl`, `hub`), `name`, `used` (how much of it), `seed`, and what is worth noting.
    """

    tokens: Ids
    facts: dict[str, Any] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """What was used, ready for JSON: the facts, with sizes, the share of distinct tokens and the checksum."""
        sequences, length = self.tokens.shape
        sizes = {"tokens": sequences * length, "sequences": sequences, "length": length}
        distinct = len(np.unique(self.tokens)) / self.tokens.size
        return {**self.facts, **sizes, "distinct": round(distinct, 4), "sha256": self.fingerprint}

    @property
    def fingerprint(self) -> str:
        """Changes with any token."""
        ids = np.ascontiguousarray(self.tokens, "<i8")
        return hashlib.sha256(repr(ids.shape).encode() + ids.tobytes()).hexdigest()


def calibration(
    source: Weights,
    recipe: Recipe,
    progress: Progress | None = None,
    *,
    folder: Path | None = None,
    origin: object = None,
) -> Calibration:
    """The calibration text of a recipe.

    Args:
        progress: counted in tokens.
        folder: where to keep the text (`calibration.json`), and to look for it first, so that a run that goes on does
            not write it again.
        origin: what tells this source's weights from another's (checksums); part of what a kept text must match.

    Raises:
        EdgeqError: the text can't be had: no such file, no network, no tokenizer, too short for one sequence.
    """
    key = _key(source, recipe, origin)
    if folder is not None and (kept := _kept(folder / FILE, key)) is not None:
        return kept
    made = _made(source, recipe, progress or _silent)
    if made.tokens.max() >= source.spec.vocab_size:
        raise EdgeqError("the tokenizer has tokens that the model lacks", where=source.spec.name)
    if folder is not None:
        write_json(folder / FILE, {"key": key, "facts": made.facts, "tokens": made.tokens.tolist()})
    return made


def _made(source: Weights, recipe: Recipe, progress: Progress) -> Calibration:
    sequences, length = shape_of(source.spec, recipe)
    if recipe.calibration == OWN:
        return _own(source, recipe.seed, sequences, length, progress)
    from edgeq.quantize.calibrate_text import Shape, json_lines, plain_text

    tokenizer = open_tokenizer(source.tokenizer_files(), source.spec.name)
    shape = Shape.of(tokenizer, sequences, length)
    ends = [i for i in (tokenizer.eos_id, *source.spec.eos_ids) if i is not None]
    if recipe.calibration.startswith(HUB):
        from edgeq.quantize.calibrate_hub import hub_text

        read, name = hub_text(recipe.calibration.removeprefix(HUB), tokenizer, shape, progress, recipe.seed, ends)
        kind = "hub"
    else:
        path = Path(recipe.calibration).expanduser()
        name, kind = str(path), "jsonl" if path.suffix.lower() in {".jsonl", ".ndjson"} else "text"
        if kind == "jsonl":
            read = json_lines(path, tokenizer, shape, progress, seed=recipe.seed, ends=ends)
        else:
            read = plain_text(path, tokenizer, shape, progress)
    facts = {"kind": kind, "name": name, "used": read.used, "seed": recipe.seed}
    if len(read.tokens) < sequences:
        facts["note"] = f"the text gave {len(read.tokens)} of {sequences} sequences"
    return Calibration(read.tokens, facts)


def _own(source: Weights, seed: int, sequences: int, length: int, progress: Progress) -> Calibration:
    from edgeq.quantize.calibrate_self import own_text

    try:
        keep_start = bool(prefix(open_tokenizer(source.tokenizer_files(), source.spec.name)))
    except EdgeqError:  # a model may write without a tokenizer
        keep_start = False
    text = own_text(source, sequences, length, seed=seed, keep_start=keep_start, progress=progress)
    facts: dict[str, Any] = {"kind": OWN, "name": source.spec.name, "seed": seed, "redrawn": text.redrawn}
    if text.degenerate:
        facts["note"] = f"{text.degenerate} of {sequences} sequences repeat themselves"
    return Calibration(text.tokens, facts)


def _key(source: Weights, recipe: Recipe, origin: object) -> str:
    """Whatever changes the text changes this; the contents of a file do, its path alone does not."""
    names = ("calibration", "calibration_tokens", "calibration_length", "seed")
    parts = [__version__, to_json(source.spec), origin, *(getattr(recipe, n) for n in names)]
    path = Path(recipe.calibration).expanduser()
    if recipe.calibration != OWN and path.is_file():
        parts.append(hashlib.sha256(path.read_bytes()).hexdigest())
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _kept(path: Path, key: str) -> Calibration | None:
    """What an earlier run of the same key left, None where it left nothing whole."""
    try:
        data = json.loads(path.read_bytes())
        tokens = np.array(data["tokens"], np.int64)
        if data["key"] == key and tokens.ndim == 2 and tokens.size and isinstance(data["facts"], dict):
            return Calibration(tokens, data["facts"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        pass
    return None


def _silent(done: int, total: int, what: str) -> None:
    """The progress of a caller that asked for none."""
