"""A written model, read back: OpenVINO's own reader, and its own arithmetic, on every weight."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov

from edgeq.checkpoint.weights import Weights, dense
from edgeq.errors import EdgeqError
from edgeq.exporters.openvino.matrices import HEAD, OFFSETS
from edgeq.model.tensors import TensorSpec, tensors
from edgeq.registry import Progress

Floats = npt.NDArray[np.float32]
_ROWS = 4096  # of an embedding, looked up at once


def read_back(path: Path, checkpoint: Weights, *, progress: Progress | None = None) -> list[str]:
    """What of the file is not what the checkpoint says, in words; empty when every weight is the same, bit for bit.

    A matrix is what its constants, conversions and products give when OpenVINO computes them, with the offsets of its
    groups added where it has some, an embedding what looking up every row gives.

    Raises:
        EdgeqError: the file can't be read at all.
    """
    try:
        model = ov.Core().read_model(path)
    except RuntimeError as error:
        raise EdgeqError("OpenVINO can't read the model", where=path) from error
    known = {t.name: t for t in tensors(checkpoint.spec)}
    every = model.get_ordered_ops()
    nodes = [n for n in every if set(_names(n)) <= known.keys()]
    offsets = {name.removesuffix(OFFSETS): n for n in every if (name := n.get_friendly_name()).endswith(OFFSETS)}
    wrong, seen = [], set()
    for i, node in enumerate(nodes):
        if progress:
            progress(i, len(nodes), node.get_friendly_name())
        for name, meant, found in _pairs(node, known, checkpoint, offsets):
            seen.add(name)
            if not _same_bits(meant, found):
                wrong.append(f"{name} was read back with other values")
    return [*wrong, *(f"{name} is not in the file" for name in known if name not in seen)]


def _names(node: Any) -> list[str]:
    """The tensors that a node's name says it holds."""
    name: str = node.get_friendly_name()
    return name.removesuffix(HEAD).split("+")


def _pairs(
    node: Any, known: dict[str, TensorSpec], checkpoint: Weights, offsets: dict[str, Any]
) -> Iterator[tuple[str, Floats, Floats]]:
    """Name, meant and found values of each tensor that a node holds."""
    names = _names(node)
    if node.get_friendly_name() == "embed":
        yield "embed", dense(checkpoint.load("embed")), _looked_up(node, known["embed"])
        return
    values, start = _shifted(_computed(node), offsets.get("+".join(names))), 0
    if known[names[0]].expert:
        yield from _stacked(names, known, checkpoint, values)
        return
    for name in names:
        meant = dense(checkpoint.load(name))
        if known[name].role == "norm":
            meant = meant + np.float32(checkpoint.spec.norm_offset)
        yield name, meant, values[start : start + len(meant)]
        start += len(meant)


def _stacked(
    names: list[str], known: dict[str, TensorSpec], checkpoint: Weights, values: Floats
) -> Iterator[tuple[str, Floats, Floats]]:
    """Of experts (experts, rows, columns), or their biases (experts, 1, rows), the rows of several in turns."""
    rows = values.swapaxes(1, 2) if known[names[0]].role == "bias" else values
    for i, name in enumerate(names):
        meant = dense(checkpoint.load(name)).reshape(known[name].shape)
        found = np.ascontiguousarray(rows[:, i :: len(names)])
        yield name, meant, found.reshape(meant.shape) if found.size == meant.size else found


def _shifted(values: Floats, offsets: Any) -> Floats:
    """Rows (rows, columns) of integers times scales with what the constant (rows, blocks) adds."""
    if offsets is None:
        return values
    added = _computed(offsets)
    blocks = values.reshape(*added.shape, -1) + added[:, :, None]
    return blocks.reshape(values.shape)


def _computed(node: Any) -> Floats:
    """What a node that depends on constants alone gives."""
    return _run(ov.Model([node.output(0)], []), [])


def _looked_up(node: Any, embed: TensorSpec) -> Floats:
    """Every row of an embedding, through the nodes that look rows up."""
    ids = _parameter(node)
    model = ov.Model([node.output(0)], [ids])
    parts = [np.arange(i, min(i + _ROWS, embed.shape[0]))[None] for i in range(0, embed.shape[0], _ROWS)]
    return np.concatenate([_run(model, [p])[0] for p in parts])


def _parameter(node: Any) -> Any:
    """The input that a node depends on."""
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if one.get_type_name() == "Parameter":
            return one
        waiting += [one.input_value(i).get_node() for i in range(one.get_input_size())]
    raise EdgeqError("the model's embedding depends on no input")


def _run(model: ov.Model, inputs: list[Any]) -> Floats:
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array(compiled.create_infer_request().infer(inputs)[0])


def _same_bits(a: Floats, b: Floats) -> bool:
    if a.shape != b.shape or not a.dtype == b.dtype == np.float32:
        return False
    return bool(np.array_equal(a.view(np.uint32), b.view(np.uint32)))
