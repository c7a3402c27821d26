"""A small model of random weights, to be exported and run: what its runtime is timed on.

Only its shape matters for speed. It needs no file and no torch: codes are drawn once for each shape of a matrix.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.checkpoint.tensor import Parameters, QuantizedTensor, groups_of
from edgeq.checkpoint.weights import Weight
from edgeq.model.spec import MLP, Attention, Layer, ModelSpec, Rope
from edgeq.model.tensors import TensorSpec, tensors
from edgeq.scheme import F16, GGML_GRIDS, Grid, Scheme, int_grid

POSITIONS = 4096
VOCAB = 512  # so few that the head costs next to nothing


def grid_named(kind: str) -> Grid:
    """The grid of a type of matrices: `int4-g32`, `int8-row` (zero points are integers), `F16`, a block type `Q4_K`."""
    if kind == "F16":
        return F16
    if kind in GGML_GRIDS:
        return GGML_GRIDS[kind]
    bits, _, group = kind.removeprefix("int").partition("-")
    return int_grid(int(bits), -1 if group == "row" else int(group.removeprefix("g")))


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a llama: `layers` blocks of width `hidden`, heads of 64."""

    hidden: int
    mlp: int
    heads: int
    kv_heads: int
    layers: int

    @property
    def layer_weights(self) -> int:
        """Of the matrices of one block."""
        return self.hidden * 64 * 2 * (self.heads + self.kv_heads) + 3 * self.hidden * self.mlp

    @property
    def weights(self) -> int:
        """Of the matrices of all blocks."""
        return self.layers * self.layer_weights

    @property
    def attention(self) -> int:
        """Multiply-adds of one token's attention for each cached token."""
        return 2 * self.layers * self.heads * 64

    def spec(self) -> ModelSpec:
        mixer = Attention(self.heads, self.kv_heads, 64, 0.125, Rope(1e4, 64))
        layers = (Layer(mixer, MLP(self.mlp)),) * self.layers
        return ModelSpec("probe", "llama", self.hidden, VOCAB, layers, True, POSITIONS)


class ProbeModel:
    """`edgeq.checkpoint.weights.Weights` of a shape with every matrix on one grid.

    Attributes:
        scheme: says so to the exporters.
    """

    def __init__(self, shape: Shape, grid: Grid, *, vocabulary: bool = True) -> None:
        """`vocabulary`: hand on a tokenizer."""
        self._files = {"tokenizer.json": tokenizer()} if vocabulary else {}
        self.spec = shape.spec()
        self.scheme = Scheme("probe", "rtn", grid, grid)
        self._tensors = {t.name: t for t in tensors(self.spec)}
        self._made: dict[tuple[int, ...], Weight] = {}

    def names(self) -> Sequence[str]:
        return tuple(self._tensors)

    def load(self, name: str) -> Weight:
        shape = self._tensors[name].shape
        if shape not in self._made:
            self._made[shape] = _random(self._tensors[name], self.scheme.linear)
        return self._made[shape]

    def tokenizer_files(self) -> dict[str, Any]:
        return dict(self._files)


def _random(t: TensorSpec, grid: Grid) -> Weight:
    if len(t.shape) == 1:
        return np.ones(t.shape, np.float32)
    draw = np.random.default_rng(0)
    if grid.kind == "float" or grid.ggml_type in ("F16", "BF16", "F32"):
        values: npt.NDArray[np.float32] = draw.standard_normal(t.shape, np.float32) * np.float32(0.02)
        return values.astype(np.float16).astype(np.float32)  # every float type holds these
    codes = draw.integers(0, grid.levels, t.shape, np.uint8)
    return QuantizedTensor.of(grid, codes, _parameters(grid, *t.shape))


def _parameters(grid: Grid, rows: int, columns: int) -> Parameters:
    """The same scale everywhere, zero in the middle of the codes: values around nought, as in a model."""
    groups, dtype = (rows, groups_of(columns, grid.group_size)), np.float16 if grid.scale_dtype == "f16" else np.float32
    step, middle = 0.08 / grid.levels, grid.levels / 2
    if grid.super_size is not None:
        supers = (rows, groups_of(columns, grid.super_size))
        if grid.zero != "float":
            return Parameters(np.full(groups, 8, np.int8), None, np.full(supers, step / 8, dtype))
        eights = np.full(groups, 8, np.uint8)
        return Parameters(eights, eights, np.full(supers, step / 8, dtype), np.full(supers, step * middle / 8, dtype))
    zeros: npt.NDArray[Any] | None = None
    if grid.zero == "int":
        zeros = np.full(groups, int(middle), np.uint8)
    elif grid.zero == "float":
        zeros = np.full(groups, -step * middle, dtype)
    return Parameters(np.full(groups, step, dtype), zeros)


def tokenizer() -> bytes:
    """A byte-level tokenizer.json that llama.cpp has a name for, with one merge: it takes none without."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {text: i for i, text in enumerate([*letters, "ĠĠ", *(f"<{i}>" for i in range(VOCAB - len(letters) - 1))])}
    made = Tokenizer(models.BPE(vocab=vocab, merges=[("Ġ", "Ġ")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return json.dumps(json.loads(made.to_str())).encode()
