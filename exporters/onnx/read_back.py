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

from edgeq.checkpoint.weights import Weights, dense
from edgeq.errors import EdgeqError
from edgeq.exporters.folder import rounded_inputs
from edgeq.exporters.onnx.written import Written
from edgeq.exporters.onnx.written_experts import experts
from edgeq.model.spec import MLP, ModelSpec, MoE
from edgeq.model.tensors import tensors
from edgeq.registry import Progress

F32 = npt.NDArray[np.float32]
_ROWS = 4096  # of the embedding looked up at once


def read_back(folder: Path, checkpoint: Weights, *, progress: Progress | None = None) -> list[str]:
    """What of the file is not what the checkpoint says, in words; empty when every weight is the same.

    Raises:
        EdgeqError: the file can't be read at all, or multiplies in a way that this does not follow.
    """
    if rounded_inputs(checkpoint):
        hint = "Its logits can be compared: edgeq verify"
        raise EdgeqError("products with rounded inputs are not read back", where=folder, hint=hint)
    file, spec = Written(folder / "model.onnx"), checkpoint.spec
    groups, mixtures = list(_groups(spec)), [i for i, x in enumerate(spec.layers) if isinstance(x.ffn, MoE)]
    total = len(groups) + len(mixtures) + 1
    wrong: list[str] = []
    for i, (value, names) in enumerate(groups):
        if progress:
            progress(i, total, names[0])
        wrong += _of_product(file, checkpoint, value, names)
    for i, layer in enumerate(mixtures, len(groups)):
        if progress:
            progress(i, total, f"layers.{layer}.experts")
        for name, values in experts(file, layer, spec):
            meant = dense(checkpoint.load(name))
            if not _same_bits(meant.reshape(-1), values.reshape(-1) if values is not None else None):
                wrong.append(f"{name} was read back with other values")
    if progress:
        progress(total - 1, total, "embed")
    if not all(_same_bits(*pair) for pair in _embedding(file, checkpoint)):
        wrong.append("embed was read back with other rows")
    for t in tensors(spec):
        if t.role in ("norm", "sinks"):
            meant = dense(checkpoint.load(t.name)) + np.float32(spec.norm_offset if t.role == "norm" else 0.0)
            found = file.constant(t.name)
            if not _same_bits(meant, found if found is None else found.reshape(meant.shape)):
                wrong.append(f"{t.name} was read back with other values")
    return wrong


def _of_product(file: Written, checkpoint: Weights, value: str, names: list[str]) -> Iterator[str]:
    """What is wrong with the matrices that are side by side in a product, and with their biases."""
    known = {t.name for t in tensors(checkpoint.spec)}
    weight, bias = file.product(value)
    start = 0
    for name in names:
        meant = dense(checkpoint.load(name))
        end = start + len(meant)
        if not _same_bits(meant, weight[start:end]):
            yield f"{name} was read back with other values"
        of_bias = f"{name.replace('embed', 'head')}_bias"
        if of_bias in known:
            found = None if bias is None else bias[start:end]
            if not _same_bits(dense(checkpoint.load(of_bias)), found):
                yield f"{of_bias} was read back with other values"
        start = end
    if start != len(weight):
        yield f"the product of {', '.join(names)} has {len(weight)} outputs, not {start}"


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


def _embedding(file: Written, checkpoint: Weights) -> Iterator[tuple[F32, Any]]:
    """Rows as meant and as the graph looks them up, some at a time."""
    meant = dense(checkpoint.load("embed"))
    look_up = file.rows("embed")
    for start in range(0, len(meant), _ROWS):
        ids = np.arange(start, min(start + _ROWS, len(meant)))
        yield meant[ids], look_up(ids)


def _same_bits(a: F32, b: Any) -> bool:
    if not isinstance(b, np.ndarray) or a.shape != b.shape or not a.dtype == b.dtype == np.float32:
        return False
    return bool(np.array_equal(a.view(np.uint32), np.ascontiguousarray(b).view(np.uint32)))
