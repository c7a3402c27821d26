"""The predicted size of an exported OpenVINO model's weights, against the exporter's own file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from edgeq.checkpoint.tensor import Parameters, QuantizedTensor, groups_of
from edgeq.checkpoint.weights import Weight
from edgeq.estimate.formats import weight_bytes
from edgeq.exporters.openvino import OpenVinoExporter
from edgeq.model.spec import MLP, Attention, Layer, ModelSpec, Rope
from edgeq.model.tensors import tensors
from edgeq.scheme import F16, GGML_GRIDS, Grid, Scheme, affine_grid, codebook_grid, int_grid


class Weights:
    """Random codes: equal ones would be stored once."""

    def __init__(self, spec: ModelSpec, scheme: Scheme) -> None:
        self.spec, self.scheme = spec, scheme

    def names(self) -> Sequence[str]:
        return tuple(t.name for t in tensors(self.spec))

    def load(self, name: str) -> Weight:
        index, tensor = next((i, t) for i, t in enumerate(tensors(self.spec)) if t.name == name)
        rng = np.random.default_rng(index)
        grid = self.scheme.embed if tensor.role in ("embed", "head") else self.scheme.linear
        if not (tensor.linear or tensor.role == "embed") or grid.kind == "float":
            return rng.standard_normal(tensor.shape).astype(np.float32)
        rows, columns = tensor.shape
        codes = rng.integers(0, 3 if grid.codebook == "ternary" else grid.levels, (rows, columns), np.uint8)
        return QuantizedTensor.of(grid, codes, parameters(grid, rows, columns, rng))

    def tokenizer_files(self) -> dict[str, Path | bytes]:
        return {}


def parameters(grid: Grid, rows: int, columns: int, rng: np.random.Generator) -> Parameters:
    groups = (rows, groups_of(columns, grid.group_size))
    # Of one magnitude, as real ones are: a minimum moved to the middle of the codes is exact then.
    floats = [rng.uniform(0.3, 1.0, groups).astype(np.float16) for _ in range(2)]
    zeros = {"none": None, "int": rng.integers(0, grid.levels, groups, np.uint8), "float": floats[1]}[grid.zero]
    if grid.super_size is None:
        return Parameters(floats[0], zeros)
    supers = rng.uniform(0.3, 1.0, (rows, groups_of(columns, grid.super_size))).astype(np.float16)
    if grid.symmetric:
        return Parameters(rng.integers(-32, 32, groups, np.int8), None, supers)
    codes = [rng.integers(0, 64, groups, np.uint8) for _ in range(2)]
    return Parameters(codes[0], codes[1], supers, supers)


@pytest.mark.parametrize(
    ("linear", "embed", "tied"),
    [
        (int_grid(4, 32), int_grid(8, 32), True),
        (int_grid(4, 32), int_grid(8, 32), False),
        (int_grid(4, 48), int_grid(8, -1), True),
        (int_grid(8, -1, symmetric=True), F16, True),
        (int_grid(2, 64, symmetric=True), int_grid(4, 32), False),
        (codebook_grid("nf4", 64), codebook_grid("nf4", 64), True),
        (codebook_grid("ternary", -1), int_grid(8, 32), False),
        (int_grid(3, 32), int_grid(6, 32, symmetric=True), True),
        (affine_grid(4, 48), affine_grid(5, 32), True),
        (affine_grid(4, 32), affine_grid(2, 32), False),
        (int_grid(4, 32), int_grid(2, 32), True),
        (codebook_grid("iq4_nl", 32), codebook_grid("nf4", 64, double=True), True),
        *((GGML_GRIDS[linear], GGML_GRIDS[embed], True) for linear, embed in (("Q4_0", "Q8_0"), ("Q4_1", "Q5_1"))),
        *((GGML_GRIDS[linear], GGML_GRIDS[embed], True) for linear, embed in (("Q4_K", "Q6_K"), ("Q3_K", "Q5_K"))),
        *((GGML_GRIDS[linear], GGML_GRIDS[embed], False) for linear, embed in (("IQ4_XS", "Q4_K"), ("Q6_K", "Q2_K"))),
    ],
)
def test_the_file_has_the_predicted_size(tmp_path: Path, linear: Grid, embed: Grid, tied: bool) -> None:
    layer = Layer(Attention(6, 2, 64, 0.125, Rope(10000.0, 64), qkv_bias=True), MLP(800))
    spec = ModelSpec("tiny", "llama", 384, 1500, (layer, layer), tied, 256, eos_ids=(2,))
    scheme = Scheme("test", "rtn", linear, embed)
    artifact = OpenVinoExporter().export(Weights(spec, scheme), tmp_path / "out")
    found = artifact.files["openvino_model.bin"]["bytes"]
    assert found == pytest.approx(weight_bytes(spec, scheme, "openvino/cpu"), rel=1e-3)
