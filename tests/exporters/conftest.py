"""Random models as in-memory weights: any spec, any grid, no files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgeq.checkpoint.activation import ActivationGrid
from edgeq.checkpoint.codebooks import codebook
from edgeq.checkpoint.tensor import QuantizedTensor, groups_of
from edgeq.checkpoint.weights import Weight, Weights
from edgeq.decoder.torch_ops import TorchOps
from edgeq.model.spec import MLP, Attention, Layer, ModelSpec, MoE, Rope
from edgeq.model.tensors import tensors
from edgeq.scheme import F32, Grid, Scheme, int_grid

IDS = np.random.default_rng(5).integers(0, 160, 20).tolist()


def tiny_spec(
    *,
    hidden: int = 64,
    tied: bool = True,
    bias: bool = False,
    layers: int = 2,
    vocab: int = 160,
    family: str = "llama",
    experts: MoE | None = None,
    sinks: bool = False,
) -> ModelSpec:
    attention = Attention(4, 2, 16, 0.25, Rope(10000.0, 16), qkv_bias=bias, o_bias=bias, sinks=sinks)
    layer = Layer(attention, experts or MLP(96, bias=bias))
    return ModelSpec("tiny", family, hidden, vocab, (layer,) * layers, tied, 64, bos_id=1, eos_ids=(2,), pad_id=0)


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
        grid = self.scheme.linear if tensor.linear else self.scheme.embed
        grid = self.overrides.get(tensor.role, grid)
        if grid.kind == "float":
            return rng.normal(0, 0.3, tensor.shape).astype(np.float32)
        return random_tensor(grid, (tensor.numel // tensor.shape[-1], tensor.shape[-1]), rng)

    def tokenizer_files(self) -> dict[str, Path | bytes]:
        return self.files


def random_tensor(grid: Grid, shape: tuple[int, int], rng: np.random.Generator) -> QuantizedTensor:
    """Random codes and parameters of the dtypes that the grid has; weights below about one."""
    rows, columns = shape
    levels = grid.levels if grid.codebook is None else len(codebook(grid.codebook))
    largest = levels if grid.codebook is None else np.abs(codebook(grid.codebook)).max()
    codes = rng.integers(0, levels, shape, dtype=np.uint8)
    groups = (rows, groups_of(columns, grid.group_size))
    scales: np.ndarray = (rng.uniform(0.3, 1.0, groups) / largest).astype(np.float16)
    zeros = None if grid.symmetric else rng.integers(0, levels, groups, dtype=np.uint8)
    if grid.zero == "float":
        zeros = rng.normal(0, 0.5, groups).astype(np.float16)
    if grid.super_size is None:
        return QuantizedTensor(grid, codes, scales, zeros)
    most, supers = 1 << grid.scale_bits, (rows, groups_of(columns, grid.super_size))
    super_scales = (rng.uniform(0.3, 1.0, supers) / largest / most).astype(np.float16)
    if grid.symmetric:
        signed = rng.integers(-most // 2, most // 2, groups, dtype=np.int8)
        return QuantizedTensor(grid, codes, signed, None, super_scales)
    sub = [rng.integers(0, most, groups, dtype=np.uint8) for _ in range(2)]
    return QuantizedTensor(grid, codes, sub[0], sub[1], super_scales, (super_scales * 8).astype(np.float16))


@pytest.fixture
def weights() -> Callable[..., RandomWeights]:
    def make(grid: Grid | None = None, overrides: dict[str, Grid] | None = None, **spec: object) -> RandomWeights:
        scheme = None if grid is None else Scheme("test", "rtn", grid, grid)
        return RandomWeights(tiny_spec(**spec), scheme, overrides=overrides or {})  # type: ignore[arg-type]

    return make


@pytest.fixture
def quantized() -> Callable[..., QuantizedTensor]:
    return lambda grid, rows, columns: random_tensor(grid, (rows, columns), np.random.default_rng(3))


@dataclass
class Rounded:
    """Weights whose linear layers read rounded inputs."""

    inner: Any
    grids: Callable[[str], ActivationGrid | None]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def activation(self, name: str) -> ActivationGrid | None:
        return self.grids(name)


class Ranges(TorchOps):
    """Keeps the range of what every linear layer reads."""

    def __init__(self, weights: Weights) -> None:
        super().__init__(weights)
        self.seen: dict[str, tuple[float, float]] = {}

    def linear(self, x: torch.Tensor, names: tuple[str, ...]) -> torch.Tensor:
        self.seen |= dict.fromkeys(names, (float(x.min()), float(x.max())))
        return super().linear(x, names)


@pytest.fixture
def make(weights: Callable[..., RandomWeights]) -> Callable[..., Rounded]:
    """A model with one scale a row, its embedding float so that nothing else is rounded."""

    def build(kind: str, *, grid: Grid | None = None, bits: int = 8, symmetric: bool = False, **spec: Any) -> Rounded:
        grid = grid or int_grid(8, -1, symmetric=True)
        source = weights(grid, **spec)
        source.scheme = Scheme("test-a8", "smoothquant", grid, F32, act_bits=8, act_static=kind == "static")
        source.overrides = {"embed": F32, "head": F32, **source.overrides}
        if kind == "dynamic":
            return Rounded(source, lambda name: ActivationGrid("dynamic", 8, symmetric))
        from edgeq.decoder.decoder import decoder
        from edgeq.decoder.torch_ops import as_ids

        ops = Ranges(source)
        decoder(ops, source.spec, as_ids(IDS))
        return Rounded(source, lambda name: static(*ops.seen[name], bits, symmetric))

    return build


def static(low: float, high: float, bits: int, symmetric: bool) -> ActivationGrid:
    """A grid that clips a tenth of the range, so that clipping is seen."""
    low, high = 0.9 * low, 0.9 * high
    if symmetric:
        return ActivationGrid("static", bits, True, max(-low, high) / 127, 0)
    top = (1 << bits) - 1
    scale = (high - low) / top
    return ActivationGrid("static", bits, False, scale, round(-low / scale))
