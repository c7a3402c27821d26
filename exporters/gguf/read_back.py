"""A written file, read back: the tensors, the architecture and the tokenizer that were meant.

Before llama.cpp is asked what it computes, and where it is not installed instead of that: edgeq's own reader, which
shares no code with the writer, has to find in the file what the checkpoint holds, every number bit for bit; where the
file's half precision does not hold a scale or a minimum, what its nearest half gives.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.checkpoint.weights import Weights
from edgeq.decoder.rope import frequencies
from edgeq.exporters.gguf.expressible import graph, window_of
from edgeq.exporters.gguf.storable import rounds
from edgeq.exporters.gguf.vocabulary import PROBE
from edgeq.model.spec import Attention, ModelSpec
from edgeq.model.tensors import tensors
from edgeq.model.weights import open_source
from edgeq.registry import Progress

_FACTS = ("hidden_size", "vocab_size", "tied", "norm_layout", "head_bias", "bos_id")
_NUMBERS = ("norm_eps", "embed_scale", "residual_scale", "logit_scale", "logit_softcap")


def read_back(path: Path, checkpoint: Weights, *, progress: Progress | None = None) -> list[str]:
    """What of the file is not what the checkpoint says, in words; empty when it is the same model.

    Raises:
        EdgeqError: the file can't be read at all.
    """
    file = open_source(path)
    wrong = [f"{what} was read back as something else" for what in different_facts(checkpoint.spec, file.spec)]
    if wrong:
        return wrong
    found = tensors(checkpoint.spec)
    for i, t in enumerate(found):
        if progress:
            progress(i, len(found), t.name)
        meant = checkpoint.load(t.name)
        values = (_values(meant) if isinstance(meant, QuantizedTensor) else meant).reshape(t.shape)
        if t.role == "norm":
            values = values + np.float32(checkpoint.spec.norm_offset)
        if not _same_bits(values, file.load(t.name)):
            wrong.append(f"{t.name} was read back with other values")
    ours, theirs = (_probe_ids(w.tokenizer_files()["tokenizer.json"]) for w in (checkpoint, file))
    if ours != theirs:
        wrong.append("the tokenizer read back gives other tokens")
    return wrong


def _values(meant: QuantizedTensor) -> npt.NDArray[np.float32]:
    """float32, a scale and what is added to a group rounded to half precision where the grid has more of it."""
    if not rounds(meant.grid):
        return meant.dequantize()
    grid, scales = meant.grid, meant.scales
    assert scales is not None
    middle = grid.levels >> 1
    added = meant.zero_points
    codes = meant.codes.astype(np.float32)
    if grid.zero == "int":
        assert added is not None
        added = np.multiply(scales, added, dtype=np.float64) * -1
    elif grid.symmetric:
        codes, added = codes - np.float32(middle), np.zeros_like(scales)
    assert added is not None
    a, b = (x.astype(np.float16).astype(np.float32).repeat(meant.group_size, 1) for x in (scales, added))
    columns = meant.shape[1]
    values: npt.NDArray[np.float32] = codes * a[:, :columns] + b[:, :columns]
    return values


def _same_bits(a: npt.NDArray[np.float32], b: Any) -> bool:
    if not isinstance(b, np.ndarray) or a.shape != b.shape or not a.dtype == b.dtype == np.float32:
        return False
    return bool(np.array_equal(a.view(np.uint32), b.view(np.uint32)))


def _probe_ids(content: Path | bytes) -> list[int]:
    from tokenizers import Tokenizer

    raw = content if isinstance(content, bytes) else content.read_bytes()
    ids: list[int] = Tokenizer.from_str(raw.decode()).encode(PROBE).ids
    return ids


def different_facts(meant: ModelSpec, found: ModelSpec) -> Iterator[str]:
    """Names of what two specs of one model disagree on, as far as it changes what the model computes.

    `found` may be for shorter sequences; it has the norms' offsets added to their weights.
    """
    if graph(meant).name != graph(found).name or meant.n_layers != found.n_layers:
        yield "the architecture"
        return
    for name in _FACTS:
        if getattr(meant, name) != getattr(found, name):
            yield name
    for name in _NUMBERS:
        if not _close(getattr(meant, name), getattr(found, name)):
            yield name
    if not set(meant.eos_ids) <= set(found.eos_ids):
        yield "eos_ids"
    for i, (a, b) in enumerate(zip(meant.layers, found.layers, strict=True)):
        if a.ffn != b.ffn:
            yield f"layer {i}'s MLP"
        assert isinstance(a.mixer, Attention) and isinstance(b.mixer, Attention)
        for name in _different_attention((a.mixer, meant), (b.mixer, found)):
            yield f"layer {i}'s {name}"


Side = tuple[Attention, ModelSpec]


def _different_attention(meant: Side, found: Side) -> Iterator[str]:
    for field in fields(Attention):
        a, b = getattr(meant[0], field.name), getattr(found[0], field.name)
        if field.name == "rope":
            same = _same_rope(meant, found)
        elif field.name == "window":
            same = window_of(meant[0], found[1]) == window_of(*found)
        else:
            same = _close(a, b) if isinstance(a, float) else a == b
        if not same:
            yield field.name


def _same_rope(meant: Side, found: Side) -> bool:
    """The same angles, whatever the kind is called: a file says Llama 3's scaling by its factors."""
    one, other = meant[0].rope, found[0].rope
    if one is None or other is None:
        return one is other
    if one.kind == other.kind == "yarn":  # no key says it, and llama.cpp does one thing always: see `deviations`
        other = replace(other, params=tuple({**dict(other.params), "truncate": one.param("truncate", 1.0)}.items()))
    for length in (None, found[1].max_positions):
        a, b = (frequencies(rope, s.max_positions, length) for rope, s in ((one, meant[1]), (other, found[1])))
        if a.inverse.shape != b.inverse.shape or not np.allclose(a.inverse, b.inverse, rtol=1e-6, atol=0):
            return False
        if not _close(a.attention_factor, b.attention_factor):
            return False
    return True


def _close(a: float | None, b: float | None) -> bool:
    if a is None or b is None:
        return a is b
    return math.isclose(a, b, rel_tol=1e-6)
