"""A written ONNX model, read back: every weight that its graph multiplies with is the checkpoint's, bit for bit.

The graph is walked from the result of each product back to its constants, and what leads to the weight is computed by
onnx's reference evaluator: no code of the exporter's, nor of onnxruntime's, stands between file and numbers. Only the
layout of onnxruntime's own operators, which onnx does not know, is decoded here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.checkpoint.weights import Weights, activation_of, dense
from edgeq.errors import EdgeqError
from edgeq.exporters.onnx.activations import by_row
from edgeq.exporters.onnx.alike import Alike
from edgeq.exporters.onnx.written import Written
from edgeq.exporters.onnx.written_experts import ONE_NODE, experts
from edgeq.exporters.onnx.written_inputs import rounding_found, rounding_meant
from edgeq.model.spec import MLP, ModelSpec, MoE
from edgeq.model.tensors import tensors
from edgeq.registry import Progress
from edgeq.scheme import Grid

F32 = npt.NDArray[np.float32]
_ROWS = 4096  # of the embedding looked up at once


def read_back(folder: Path, checkpoint: Weights, *, progress: Progress | None = None) -> list[str]:
    """What of the file is not what the checkpoint says, in words; empty when every weight is the same.

    Raises:
        EdgeqError: the file can't be read at all, or multiplies in a way that this does not follow.
    """
    if (folder / "model.ort").exists():
        hint = "Its logits can be compared: edgeq verify"
        raise EdgeqError("an .ort file, made by onnxruntime's optimizers, is not read back", where=folder, hint=hint)
    file, spec = Written(folder / "model.onnx"), checkpoint.spec
    same = Alike(file.half)
    groups, mixtures = list(_groups(spec)), [i for i, x in enumerate(spec.layers) if isinstance(x.ffn, MoE)]
    total = len(groups) + len(mixtures) + 1
    wrong: list[str] = []
    for i, (value, names) in enumerate(groups):
        if progress:
            progress(i, total, names[0])
        wrong += _of_product(file, checkpoint, value, names, same)
        wrong += _of_inputs(file, checkpoint, value, names)
    for i, layer in enumerate(mixtures, len(groups)):
        if progress:
            progress(i, total, f"layers.{layer}.experts")
        for name, values in experts(file, layer, spec):
            weight = checkpoint.load(name)
            if not same(weight, None if values is None else values.reshape(dense(weight).shape)):
                wrong.append(f"{name} was read back with other values")
        wrong += _of_expert_inputs(file, checkpoint, layer)
    if progress:
        progress(total - 1, total, "embed")
    if not all(same.values(*pair) for pair in _embedding(file, checkpoint)):
        wrong.append("embed was read back with other rows")
    for t in tensors(spec):
        if t.role in ("norm", "sinks"):
            meant = dense(checkpoint.load(t.name)) + np.float32(spec.norm_offset if t.role == "norm" else 0.0)
            found = file.constant(t.name)
            if not same(meant, found if found is None else found.reshape(meant.shape)):
                wrong.append(f"{t.name} was read back with other values")
    return wrong


def _of_product(file: Written, checkpoint: Weights, value: str, names: list[str], same: Alike) -> Iterator[str]:
    """What is wrong with the matrices that are side by side in a product, and with their biases."""
    known = {t.name for t in tensors(checkpoint.spec)}
    weight, bias = file.product(value)
    start = 0
    for name in names:
        meant = checkpoint.load(name)
        end = start + meant.shape[0]
        if not same(meant, weight[start:end]):
            yield f"{name} was read back with other values"
        of_bias = f"{name.replace('embed', 'head')}_bias"
        if of_bias in known:
            found = None if bias is None else bias[start:end]
            if not same(checkpoint.load(of_bias), found):
                yield f"{of_bias} was read back with other values"
        start = end
    if start != len(weight):
        yield f"the product of {', '.join(names)} has {len(weight)} outputs, not {start}"


def _of_inputs(file: Written, checkpoint: Weights, value: str, names: list[str]) -> Iterator[str]:
    """What is wrong with the grid that the inputs of a product are rounded to."""
    grid = None if value == "logits" else activation_of(checkpoint, names[0])
    read = rounding_found(file, value)
    wanted = (
        None if grid is None else rounding_meant(grid, by_row=by_row([checkpoint.load(n) for n in names]) is not None)
    )
    if read != wanted:
        yield f"the inputs of {', '.join(names)} were read back with another rounding"


def _of_expert_inputs(file: Written, checkpoint: Weights, layer: int) -> Iterator[str]:
    """The same for routed experts, of which all read the same inputs; those in one node have them rounded to none."""
    at, ffn = f"layers.{layer}.", checkpoint.spec.layers[layer].ffn
    assert isinstance(ffn, MoE)
    for roles in (("gate", "up"), ("down",)):
        stacked = [f"{at}experts_{r}" for r in roles]
        grid = activation_of(checkpoint, stacked[0])
        wanted = None
        if grid is not None:
            wanted = rounding_meant(grid, by_row=by_row([checkpoint.load(n) for n in stacked]) is not None)
        values = [f"{at}experts.{e}.{'_'.join(roles)}" for e in range(ffn.experts)]
        alone = file.maker(f"{at}experts").op_type in ONE_NODE
        if any((None if alone else rounding_found(file, v)) != wanted for v in values):
            yield f"the inputs of {', '.join(stacked)} were read back with another rounding"


def _groups(spec: ModelSpec) -> Iterator[tuple[str, list[str]]]:
    """Each product's value in the graph, and the matrices that are side by side in it."""
    for i, layer in enumerate(spec.layers):
        dense_parts = []
        if isinstance(layer.ffn, MLP):
            dense_parts = [["gate", "up"] if layer.ffn.gated else ["up"], ["down"]]
        elif isinstance(layer.ffn, MoE) and layer.ffn.shared_intermediate:
            dense_parts = [["shared_gate", "shared_up"], ["shared_down"]]
        for parts in (["q", "k", "v"], ["o"], *dense_parts):
            yield f"layers.{i}.{'_'.join(parts)}", [f"layers.{i}.{p}" for p in parts]
    yield "logits", ["embed" if spec.tied else "head"]


def _embedding(file: Written, checkpoint: Weights) -> Iterator[tuple[F32, Any, Grid | None]]:
    """Rows as meant and as the graph looks them up, some at a time, and their grid."""
    weight = checkpoint.load("embed")
    grid = weight.grid if isinstance(weight, QuantizedTensor) else None
    values, look_up = dense(weight), file.rows("embed")
    for start in range(0, len(values), _ROWS):
        ids = np.arange(start, min(start + _ROWS, len(values)))
        yield values[ids], look_up(ids), grid
