"""Calibration text that the model writes itself: no data set, and what the model knows decides what it is about.

Each sequence starts from the model's start token and a word drawn evenly from those likely there, and goes on by
sampling at temperature 1. LLM-QAT (arXiv 2305.17888) found samples better than greedy text, and a varied beginning
needed; self-calibration (arXiv 2410.17170) found the model's own text as good as real text for post-training methods.
A sequence has its own stream of random numbers, so that the text does not depend on the batches it was made in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import psutil
import torch

from edgeq.checkpoint.weights import Weights
from edgeq.decoder.decoder import check_supported, decoder
from edgeq.decoder.torch_ops import ABLE, KeyValueCache, TorchOps
from edgeq.errors import EdgeqError
from edgeq.model.spec import ModelSpec
from edgeq.model.tensors import parameters
from edgeq.quantize.calibrate_needs import rows_of
from edgeq.registry import Progress

Ids = npt.NDArray[np.int64]
Tensor = torch.Tensor

LIKELY = 1000  # words that may begin a text
GRAM, LEAST_DISTINCT = 4, 0.5  # a sequence whose 4-grams are mostly repeated is degenerate
REDRAWS = 2
WHAT = "writing calibration text"


@dataclass(frozen=True, slots=True)
class OwnText:
    """Attributes:
    tokens: int64 (sequences, length).
    redrawn: degenerate sequences that were written anew.
    degenerate: those that stayed so.
    """

    tokens: Ids
    redrawn: int
    degenerate: int


def own_text(
    source: Weights, sequences: int, length: int, *, seed: int, keep_start: bool, progress: Progress
) -> OwnText:
    """Have the model write `sequences` sequences of `length` tokens.

    Args:
        keep_start: the start token is part of a sequence (of models whose tokenizer puts one before a text).
        progress: counted in tokens.

    Raises:
        EdgeqError: the decoder can't run the model, or memory can't hold it: each token would read it from disk.
    """
    check_supported(source.spec, ABLE)
    writer = _Writer(source, length, keep_start)
    tokens = np.empty((sequences, length), np.int64)
    waiting, redrawn = np.arange(sequences), 0
    for attempt in range(REDRAWS + 1):
        done = (sequences - len(waiting)) * length
        for start in range(0, len(waiting), writer.rows):
            part = waiting[start : start + writer.rows]
            chances = np.stack([np.random.default_rng((seed, int(i), attempt)).random(length + 1) for i in part])
            tokens[part] = writer.write(chances, partial(_told, progress, done, sequences * length))
            done += len(part) * length
        waiting = waiting[[distinct_share(tokens[i]) < LEAST_DISTINCT for i in waiting]]
        if not len(waiting):
            break
        redrawn += len(waiting) if attempt < REDRAWS else 0
    return OwnText(tokens, redrawn, len(waiting))


def distinct_share(ids: Ids) -> float:
    """Distinct 4-grams over all of them; low where a text goes round in circles."""
    if len(ids) <= GRAM:
        return 1.0
    grams = np.lib.stride_tricks.sliding_window_view(ids, GRAM)
    return len(np.unique(grams, axis=0)) / len(grams)


class _Writer:
    """The model, held in memory, writing batches of sequences."""

    def __init__(self, source: Weights, length: int, keep_start: bool) -> None:
        spec = source.spec
        self._spec, self._length, self._keep_start = spec, length, keep_start
        self._ops = TorchOps(source, dtype=_dtype(spec), keep=True)
        self._start = next((i for i in (spec.bos_id, *spec.eos_ids, spec.pad_id) if i is not None), 0)
        self._ends = torch.tensor(spec.eos_ids or (-1,))
        self.rows = rows_of(spec, length, self._ops.dtype.itemsize)

    def write(self, chances: npt.NDArray[np.float64], progress: Callable[[int], None]) -> Ids:
        """int64 (rows, length) from (rows, length + 1) numbers in [0, 1), one a token."""
        rows = len(chances)
        draws = torch.from_numpy(chances)
        cache = RoomyCache(self._length + 1)
        self._ops.cache = cache
        last = torch.full((rows,), self._start)
        written = [last]
        fresh = torch.ones(rows, dtype=torch.bool)  # the token to come begins a text
        likely: Tensor | None = None
        with torch.inference_mode():
            for step in range(self._length - int(self._keep_start)):
                logits = decoder(self._ops, self._spec, last[:, None])[:, 0]
                cache.length += 1
                if likely is None:
                    likely = self._beginnings(logits[0])
                ended = torch.isin(last, self._ends) & ~fresh
                begins = fresh if self._keep_start else fresh | ended
                begun = likely[(draws[:, step] * len(likely)).long()]
                last = torch.where(begins, begun, sample(logits, draws[:, step]))
                if self._keep_start:  # where texts begin with the start token, one stands between two texts
                    last = torch.where(ended, self._start, last)
                    fresh = ended
                else:
                    fresh = torch.zeros_like(fresh)
                written.append(last)
                progress((step + 1) * rows)
        first = 0 if self._keep_start else 1
        ids: Ids = torch.stack(written[first:], 1).numpy()
        return ids

    def _beginnings(self, logits: Tensor) -> Tensor:
        """Ids of the tokens that are likeliest to begin a text, none of which would end it."""
        logits = logits.clone()
        logits[[i for i in (self._start, *self._spec.eos_ids) if i < len(logits)]] = -torch.inf
        return logits.topk(min(LIKELY, max(1, len(logits) // 4))).indices


class RoomyCache(KeyValueCache):
    """Keys and values with room for a known number of tokens, so that a step copies nothing but its own."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self._room = tokens

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        if layer not in self.layers:
            self.layers[layer] = (self._room_for(keys), self._room_for(values))
        room_keys, room_values = self.layers[layer]
        end = self.length + keys.shape[2]
        room_keys[:, :, self.length : end] = keys
        room_values[:, :, self.length : end] = values
        return room_keys[:, :, :end], room_values[:, :, :end]

    def _room_for(self, part: Tensor) -> Tensor:
        batch, heads, _, width = part.shape
        return part.new_empty((batch, heads, self._room, width))


def _told(progress: Progress, before: int, total: int, done: int) -> None:
    progress(before + done, total, WHAT)


def sample(logits: Tensor, chances: Tensor) -> Tensor:
    """int64 (rows,): the token where the cumulated probabilities of (rows, vocab) logits pass each chance."""
    mass = logits.float().softmax(-1).double().cumsum(-1)
    found = torch.searchsorted(mass, (chances * mass[:, -1])[:, None], right=True)[:, 0]
    return found.clamp_(max=logits.shape[1] - 1)


def _dtype(spec: ModelSpec) -> torch.dtype:
    """Single precision where memory holds the model so, else bfloat16."""
    free = psutil.virtual_memory().available * 0.7
    for dtype in (torch.float32, torch.bfloat16):
        if parameters(spec) * dtype.itemsize < free:
            return dtype
    sizes = f"it takes {parameters(spec) * 2 / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free"
    raise EdgeqError(
        f"the model can't write its own calibration text: {sizes}",
        where=spec.name,
        hint="Give a text with --calibration FILE.txt; that works within the memory of one layer",
    )
