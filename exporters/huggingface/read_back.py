"""A written folder, read back: the architecture, and every tensor as the checkpoint has it.

No runtime of edgeq's opens such a folder, so that this stands in for `edgeq verify`: the reader of `edgeq convert`
has to find what was meant, codes and scales as they are, floats bit for bit.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from edgeq.checkpoint.activation import ActivationGrid
from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.checkpoint.weights import Weight, Weights, dense
from edgeq.formats.sources import open_quantized, quantization_config
from edgeq.formats.uniform import Array, uniform, zero_points
from edgeq.model.hf_config import different, norm_shift
from edgeq.model.tensors import tensors
from edgeq.model.weights import open_source
from edgeq.registry import Progress


def read_back(folder: Path, checkpoint: Weights, *, progress: Progress | None = None) -> list[str]:
    """What of the folder is not what the checkpoint says, in words; empty when it is the same model.

    Raises:
        EdgeqError: the folder can't be read at all.
    """
    found: Weights = open_source(folder) if quantization_config(folder) is None else open_quantized(folder)
    # generation_config.json, which both have, may name more stop tokens than the configuration.
    meant = replace(checkpoint.spec, eos_ids=found.spec.eos_ids, pad_id=found.spec.pad_id)
    what = different(meant, found.spec)
    if what is not None:
        return [f"{what} was read back as something else"]
    wrong = []
    shift = np.float32(norm_shift(checkpoint.spec, found.spec))
    listed = tensors(checkpoint.spec)
    for i, t in enumerate(listed):
        if progress:
            progress(i, len(listed), t.name)
        there = found.load(t.name)
        if t.role == "norm":
            there = dense(there) + shift
        if not _same(checkpoint.load(t.name), there):
            wrong.append(f"{t.name} was read back with other values")
        if _input(checkpoint, t.name) != _input(found, t.name):
            wrong.append(f"{t.name} was read back with another activation grid")
    return wrong


def _same(meant: Weight, found: Weight) -> bool:
    if not isinstance(meant, QuantizedTensor) or not isinstance(found, QuantizedTensor):
        return _same_bits(dense(meant), dense(found))
    a, b = uniform(meant), uniform(found)
    if a.grid.bits != b.grid.bits or not np.array_equal(a.codes, b.codes):
        return False
    same_zeros = bool(np.array_equal(zero_points(a), zero_points(b)))
    return same_zeros and _same_bits(a.scales.astype(np.float32), b.scales.astype(np.float32))


def _same_bits(a: Array, b: Array) -> bool:
    """float32 arrays."""
    return a.shape == b.shape and bool(np.array_equal(a.view(np.uint32), b.view(np.uint32)))


def _input(weights: Weights, name: str) -> ActivationGrid | None:
    asked = getattr(weights, "activation", None)
    grid: ActivationGrid | None = None if asked is None else asked(name)
    if grid is None or grid.scale is None:
        return grid
    return replace(grid, scale=float(np.float32(grid.scale)))  # what is computed with, here and there
