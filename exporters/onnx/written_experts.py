"""The experts of a written ONNX model: in one node of onnxruntime's, or a product for each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from edgeq.exporters.onnx.written import Written
from edgeq.model.spec import ModelSpec, MoE

Array = npt.NDArray[Any]
# Where the nodes have codes, scales, biases and zero points of gate with up, and of down.
_INPUTS = {"QMoE": ((2, 3, 4, 11), (5, 6, 7, 12)), "MoE": ((2, None, 3, None), (4, None, 5, None))}
ONE_NODE = frozenset(_INPUTS)


def experts(file: Written, layer: int, spec: ModelSpec) -> Iterator[tuple[str, Array | None]]:
    """Name and values, float32 of any shape, of every tensor that a layer's mixture has beside its shared experts'
    matrices; None: there is none in the file.

    Raises:
        EdgeqError: the graph has no experts in this layer.
    """
    at, ffn = f"layers.{layer}.", spec.layers[layer].ffn
    assert isinstance(ffn, MoE)
    router = file.constant(f"{at}router")
    yield f"{at}router", None if router is None else np.ascontiguousarray(router.T)
    if ffn.router_bias:
        yield f"{at}router_bias", file.constant(f"{at}router_bias")
    if ffn.shared_gate:
        yield f"{at}shared_router", file.constant(f"{at}shared_router")
    node = file.maker(f"{at}experts")
    if node.op_type in _INPUTS:
        (both, both_bias), (down, down_bias) = _of_node(file, node)
        parts = {"gate": _in_turn(both, ffn, 0), "up": _in_turn(both, ffn, 1), "down": down}
        biases = {"gate": _in_turn(both_bias, ffn, 0), "up": _in_turn(both_bias, ffn, 1), "down": down_bias}
    else:
        parts, biases = _of_products(file, at, ffn)
    for role, values in parts.items():
        yield f"{at}experts_{role}", values
        if ffn.expert_bias:
            yield f"{at}experts_{role}_bias", biases[role]


def _of_node(file: Written, node: onnx.NodeProto) -> list[tuple[Array, Array | None]]:
    """Matrices with the experts' rows one below the other, and biases (experts, rows): of gate and up, and of down."""
    found = []
    for codes, scales, bias, zeros in _INPUTS[node.op_type]:
        name = node.input[codes]
        if scales is None:
            values = file.evaluator(name)({})
            values = values.reshape(-1, values.shape[-1])
        else:
            of_zeros = node.input[zeros] if zeros is not None and len(node.input) > zeros else ""
            values = file.blocks(name, node.input[scales], of_zeros, node)
        found.append((values, file.constant(node.input[bias]) if len(node.input) > bias else None))
    return found


def _in_turn(both: Array | None, ffn: MoE, first: int) -> Array | None:
    """The rows of one of two matrices whose rows are in turns."""
    if both is None:
        return None
    return np.ascontiguousarray(both[first::2] if len(both) != ffn.experts else both[:, first::2])


def _of_products(file: Written, at: str, ffn: MoE) -> tuple[dict[str, Array | None], dict[str, Array | None]]:
    """Matrices and biases of every role, one expert's below the other's."""
    parts: dict[str, list[Array]] = {"gate": [], "up": [], "down": []}
    biases: dict[str, list[Array]] = {role: [] for role in parts}
    for e in range(ffn.experts):
        for roles in (("gate", "up"), ("down",)):
            weight, bias = file.product(f"{at}experts.{e}.{'_'.join(roles)}")
            for i, role in enumerate(roles):
                rows = slice(i * len(weight) // len(roles), (i + 1) * len(weight) // len(roles))
                parts[role].append(weight[rows])
                if bias is not None:
                    biases[role].append(bias[rows])
    return _joined(parts), _joined(biases)


def _joined(parts: dict[str, list[Array]]) -> dict[str, Array | None]:
    return {role: np.concatenate(values) if values else None for role, values in parts.items()}
