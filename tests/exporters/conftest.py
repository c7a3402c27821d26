"""Random models as in-memory weights: any spec, any grid, no files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.checkpoint.weights import Weight
from edgeq.model.spec import MLP, Attention, Layer, ModelSpec, Rope
from edgeq.model.tensors import tensors
from edgeq.scheme import Grid, Scheme


def tiny_spec(*, hidden: int = 64, tied: bool = True, bias: bool = False, layers: int = 2) -> ModelSpec:
    attention = Attention(4, 2, 16, 0.25, Rope(10000.0, 16), qkv_bias=bias, o_bias=bias)
    layer = Layer(attention, MLP(96, bias=bias))
    return ModelSpec("tiny", "llama", hidden, 160, (layer,) * layers, tied, 64, bos_id=1, eos_ids=(2,), pad_id=0)


@dataclass
class RandomWeights:
    """Normal weights of a spec; matrices are on `grid` when one is given, with random codes and parameters."""

    spec: ModelSpec
    scheme: Scheme | None = None
    files: dict[str, Path | bytes] = field(default_factory=dict)
    overrides: dict[str, Grid] = field(default_factory=dict)

    def names(self) -> Sequence[str]:
        return tuple(t.name for t in tensors(self.spec))

    def load(self, name: str) -> Weight:
        index, tensor = next((i, t) for i, t in enumerate(tensors(self.spec)) if t.name == name)
        rng = np.random.default_rng(index)
        if self.scheme is None or not (tensor.linear or tensor.role == "embed"):
            return rng.normal(0.5 * (tensor.role == "norm"), 0.3, tensor.shape).astype(np.float32)
        grid = self.overrides.get(tensor.role, self.scheme.linear if tensor.linear else self.scheme.embed)
        if grid.kind == "float":
            return rng.normal(0, 0.3, tensor.shape).astype(np.float32)
        return random_tensor(grid, (tensor.shape[0], tensor.shape[1]), rng)

    def tokenizer_files(self) -> dict[str, Path | bytes]:
        return self.files


def random_tensor(grid: Grid, shape: tuple[int, int], rng: np.random.Generator) -> QuantizedTensor:
    rows, columns = shape
    groups = 1 if grid.group_size == -1 else -(-columns // grid.group_size)
    codes = rng.integers(0, grid.levels, shape, dtype=np.uint8)
    scales = (rng.uniform(0.3, 1.0, (rows, groups)) / grid.levels).astype(np.float16)
    zeros = None if grid.symmetric else rng.integers(0, grid.levels, (rows, groups), dtype=np.uint8)
    return QuantizedTensor(grid, codes, scales, zeros)


@pytest.fixture
def weights() -> Callable[..., RandomWeights]:
    def make(grid: Grid | None = None, overrides: dict[str, Grid] | None = None, **spec: object) -> RandomWeights:
        scheme = None if grid is None else Scheme("test", "rtn", grid, grid)
        return RandomWeights(tiny_spec(**spec), scheme, overrides=overrides or {})  # type: ignore[arg-type]

    return make


@pytest.fixture
def quantized() -> Callable[..., QuantizedTensor]:
    return lambda grid, rows, columns: random_tensor(grid, (rows, columns), np.random.default_rng(3))
