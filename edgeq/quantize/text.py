"""The calibration text and the allocation of a run, kept in its folder: a resume neither writes nor searches again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgeq.checkpoint.weights import Weights
from edgeq.errors import EdgeqError
from edgeq.files import write_json
from edgeq.jsonable import from_json, to_json
from edgeq.model.spec import ModelSpec
from edgeq.quantize.work import GRIDS, SCRATCH
from edgeq.recipe import Recipe
from edgeq.registry import Progress
from edgeq.scheme import Grid

if TYPE_CHECKING:
    from edgeq.quantize.calibrate import Calibration


def given_text(tokens: npt.ArrayLike) -> Calibration:
    """Token ids (sequences, length) from a caller."""
    from edgeq.quantize.calibrate import Calibration

    return Calibration(np.ascontiguousarray(tokens, np.int64), {"kind": "given"})


def check_text(text: Calibration, spec: ModelSpec) -> None:
    """Raise an EdgeqError unless these are sequences of the model's tokens."""
    tokens = text.tokens
    if tokens.ndim != 2 or not tokens.size:
        raise EdgeqError("no calibration text: it has no tokens")
    if tokens.min() < 0 or tokens.max() >= spec.vocab_size:
        raise EdgeqError(f"calibration tokens must lie in 0..{spec.vocab_size - 1}")


def allocated(
    source: Weights, recipe: Recipe, text: Calibration | None, folder: Path, key: str, report: Progress
) -> dict[str, Grid]:
    """The grid of every matrix under the recipe's budget: found once for a run, whose fingerprint is `key`.

    Raises:
        EdgeqError: the budget can't be met.
    """

    def make() -> Any:
        from edgeq.quantize.allocate import allocation

        scratch = folder / SCRATCH
        scratch.mkdir(exist_ok=True)
        return to_json(allocation(source, recipe, text, report, work=scratch))

    return from_json(_Grids, {"grids": _kept(folder / GRIDS, key, make)}).grids


@dataclass(frozen=True, slots=True)
class _Grids:
    grids: dict[str, Grid]


def _kept(path: Path, key: str, make: Callable[[], Any]) -> Any:
    """The value that lies at `path` under `key`, or a new one put there."""
    try:
        data = json.loads(path.read_bytes())
        if data["key"] == key and data["sha256"] == _digest(data["value"]):
            return data["value"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        pass  # none, or cut short, or another's
    value = json.loads(json.dumps(make()))  # as a resume will read it
    write_json(path, {"key": key, "sha256": _digest(value), "value": value})
    return value


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
