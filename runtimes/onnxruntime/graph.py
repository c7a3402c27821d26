"""What an exported graph wants and gives, read from the loaded session, and what makes it a graph we can run.

The names are those of onnxruntime-genai, so that the same file runs there:

- inputs `input_ids` int64 [batch, tokens], `attention_mask` int64 [batch, total],
  `past_key_values.N.key` and `.value` [batch, kv_heads, capacity, head_dim]
- outputs `logits` [batch, tokens, vocab], `present.N.key` and `.value`, shaped as the past

The caches go through GroupQueryAttention, which appends in place when past and present are the same buffer
(https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md).

A graph in standard operators says `edgeq.cache: growing` in its metadata. Then a cache is as long as the tokens in it,
the present one is the past one with this call's tokens, and there is an input `position_ids` int64 [batch, tokens].
One that says `edgeq.cache: shared` appends in place too, but reads its caches to their ends.

One input is optional: `logits_from` int64 [1], an initializer that may be overridden. The graph then gives the logits
of the tokens from this one on, so that a prompt need not pay for the head at every token.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.errors import EdgeqError

LOGITS_FROM = "logits_from"
_PAST = re.compile(r"past_key_values\.(\d+)\.(key|value)")
_DTYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
}


@dataclass(frozen=True, slots=True)
class Cache:
    """One key or value cache: its buffer is [1, kv_heads, capacity, width]."""

    past: str
    present: str
    kv_heads: int
    width: int
    dtype: type[np.generic]

    def bytes(self, capacity: int) -> int:
        return self.kv_heads * capacity * self.width * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class Graph:
    caches: tuple[Cache, ...]
    vocab_size: int
    logits_dtype: type[np.generic]
    has_logits_from: bool
    growing: bool = False
    reads_all: bool = False


def read_graph(session: Any, where: Path, head_dim: int | None = None) -> Graph:
    """Read the signature of an `onnxruntime.InferenceSession`.

    `head_dim` is the caches' width where the graph leaves it open.

    Raises:
        EdgeqError: inputs or outputs that are missing, unknown, or of a type or shape we can't bind.
    """
    inputs = {i.name: i for i in session.get_inputs()}
    outputs = {o.name: o for o in session.get_outputs()}
    kind = session.get_modelmeta().custom_metadata_map.get("edgeq.cache")
    growing = kind == "growing"
    integers = ("input_ids", "attention_mask", *(("position_ids",) if growing else ()))
    for name in integers:
        if name not in inputs:
            raise _other(f"the graph has no input {name}", where)
        if inputs[name].type != "tensor(int64)":
            raise _other(f"the graph's input {name} is {inputs[name].type}, not int64", where)
    unknown = [n for n in inputs if n not in integers and not _PAST.fullmatch(n)]
    if unknown:
        raise _other(f"the graph wants an input {unknown[0]!r} that is not known here", where)
    caches = tuple(_cache(node, outputs, head_dim, where) for name, node in inputs.items() if _PAST.fullmatch(name))
    if not caches:
        raise _other("the graph keeps no KV cache", where)
    if "logits" not in outputs:
        raise _other("the graph has no output logits", where)
    logits = outputs["logits"]
    if logits.type not in ("tensor(float)", "tensor(float16)"):
        raise _other(f"the graph's logits are {logits.type}", where)
    if len(logits.shape) != 3 or not isinstance(logits.shape[2], int):
        raise _other(f"the graph's logits have shape {logits.shape}, not [batch, tokens, vocab]", where)
    overridable = {i.name for i in session.get_overridable_initializers()}
    return Graph(caches, logits.shape[2], _DTYPES[logits.type], LOGITS_FROM in overridable, growing, kind == "shared")


def _cache(node: Any, outputs: dict[str, Any], head_dim: int | None, where: Path) -> Cache:
    present = node.name.replace("past_key_values", "present", 1)
    if present not in outputs:
        raise _other(f"the graph has no output {present}", where)
    dtype = _DTYPES.get(node.type)
    if dtype is None or outputs[present].type != node.type:
        raise _other(f"the graph's cache {node.name} is {node.type}, {present} is {outputs[present].type}", where)
    shape = node.shape
    width = shape[3] if len(shape) == 4 and isinstance(shape[3], int) else head_dim
    if len(shape) != 4 or not isinstance(shape[1], int) or width is None:
        raise _other(f"the graph's cache {node.name} has shape {shape}, not [batch, kv_heads, capacity, width]", where)
    return Cache(node.name, present, shape[1], width, dtype)


def _other(what: str, where: Path) -> EdgeqError:
    return EdgeqError(what, where=where, hint="This runtime opens what `edgeq export` writes for it")
