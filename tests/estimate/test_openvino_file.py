"""The predicted size of an exported OpenVINO model's weights, against the exporter's own file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from edgeq.checkpoint.tensor import QuantizedTensor, groups_of
from edgeq.checkpoint.weights import Weight
from edgeq.estimate.formats import weight_bytes
from edgeq.exporters.openvino import OpenVinoExporter
from edgeq.model.spec import MLP, Attention, Layer, ModelSpec, Rope
from edgeq.model.tensors import tensors
from edgeq.scheme import F16, Grid, Scheme, codebook_grid, int_grid


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
        groups = (rows, groups_of(columns, grid.group_size))
        zeros = None if grid.symmetric else rng.integers(0, grid.levels, groups, np.uint8)
        codes = rng.integers(0, 3 if grid.codebook == "ternary" else grid.levels, (rows, columns), np.uint8)
        return QuantizedTensor(grid, codes, rng.random(groups).astype(np.float16), zeros)

    def tokenizer_files(self) -> dict[str, Path | bytes]:
        return {}


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
    ],
)
def test_the_file_has_the_predicted_size(tmp_path: Path, linear: Grid, embed: Grid, tied: bool) -> None:
    layer = Layer(Attention(6, 2, 64, 0.125, Rope(10000.0, 64), qkv_bias=True), MLP(800))
    spec = ModelSpec("tiny", "llama", 384, 1500, (layer, layer), tied, 256, eos_ids=(2,))
    scheme = Scheme("test", "rtn", linear, embed)
    artifact = OpenVinoExporter().export(Weights(spec, scheme), tmp_path / "out")
    found = artifact.files["openvino_model.bin"]["bytes"]
    assert found == pytest.approx(weight_bytes(spec, scheme, "openvino/cpu"), rel=1e-3)
