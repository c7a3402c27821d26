"""Rotary embeddings as GGUF keeps them: scaling keys, and frequency factors in tensors of their own."""

from __future__ import annotations

import math

import numpy as np

from edgeq.errors import EdgeqError
from edgeq.model.fields import Fields
from edgeq.model.gguf_file import GgufFile
from edgeq.model.rope_config import mscale
from edgeq.model.spec import Rope


def gguf_rope(file: GgufFile, f: Fields, dim: int, max_positions: int) -> Rope:
    """The rotary embedding of the layers that see everything.

    Llama 3.1's scaling is in the file as one factor a frequency (`rope_freqs`), which is what LongRoPE's factors are:
    it becomes a `longrope` of equal short and long factors and an attention factor of one.

    Raises:
        EdgeqError: a key has a wrong value, or a tensor of factors a wrong length.
    """
    theta = float(f"{f.number('rope.freq_base', 10_000.0):.7g}")
    original = f.integer("rope.scaling.original_context_length", max_positions)
    attention = f.number("rope.scaling.attn_factor", 1.0)
    if "rope_factors_short.weight" in file.tensors:
        short, long = (_factors(file, f"rope_factors_{n}.weight", dim) for n in ("short", "long"))
        return _long(theta, dim, short, long, attention, original)
    if "rope_freqs.weight" in file.tensors:
        both = _factors(file, "rope_freqs.weight", dim)
        return _long(theta, dim, both, both, 1.0, max_positions)
    kind = f.text("rope.scaling.type", "none")
    if kind in ("none", "longrope"):
        return Rope(theta, dim)
    factor = f.number("rope.scaling.factor", 1.0)
    if kind == "linear":
        return Rope(theta, dim, "linear", (("factor", factor),), original)
    if kind != "yarn":
        raise f.wrong("rope.scaling.type", "none, linear, yarn or longrope")
    params = {
        "factor": factor,
        "beta_fast": f.number("rope.scaling.yarn_beta_fast", 32.0),
        "beta_slow": f.number("rope.scaling.yarn_beta_slow", 1.0),
        "attention_factor": attention * _temperature(f, factor),
        "truncate": 0.0 if f.path == "gpt-oss" else 1.0,
    }
    return Rope(theta, dim, "yarn", tuple(sorted(params.items())), original)


def _temperature(f: Fields, factor: float) -> float:
    """YaRN's factor on cosine and sine; DeepSeek moves it into the softmax scale instead."""
    return 1.0 if f.has("rope.scaling.yarn_log_multiplier") else mscale(factor)


def _factors(file: GgufFile, name: str, dim: int) -> tuple[float, ...]:
    if name not in file.tensors or math.prod(file.tensors[name].shape) != dim // 2:
        raise EdgeqError(f"tensor {name} should have {dim // 2} numbers", where=file.path)
    values = file.read(name).reshape(-1)
    if not np.all(np.isfinite(values)) or values.min() <= 0:
        raise EdgeqError(f"tensor {name} should hold numbers above zero", where=file.path)
    return tuple(float(v) for v in values)


def _long(
    theta: float, dim: int, short: tuple[float, ...], long: tuple[float, ...], attention: float, original: int
) -> Rope:
    params = (("attention_factor", attention), ("factor", 1.0), ("long_factor", long), ("short_factor", short))
    return Rope(theta, dim, "longrope", params, original)
