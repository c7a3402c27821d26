"""Mixtures of experts as one onnxruntime node: `QMoE` for quantized experts, `MoE` for float ones.

What the processor's kernels of onnxruntime 1.31 do, tried. Both: rows of gate and up in turns (`swiglu_fusion` 1).
`MoE` gives zeros where another node made its input and its weights are not to add up to one; `QMoE` makes them add up
to one in any case: so both do, and what a softmax over all experts adds up to is multiplied in after the node. `QMoE`
takes codes of one width a node, in blocks of a power of two from 16 that divide the hidden and the expert's width, and
rounds inputs to int8 at accuracy level 4; those of 2-bit and 8-bit codes at level 0 as well, which therefore are
`MoE` on dequantized weights there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.checkpoint.weights import Weight, Weights, activation_of, dense
from edgeq.estimate.onnx_file import EXPERT_BITS
from edgeq.exporters.folder import grid_of
from edgeq.exporters.onnx.graph import MICROSOFT, Graph
from edgeq.exporters.onnx.packing import pack_bits
from edgeq.exporters.stacked import expert_of, in_turns
from edgeq.model.spec import ModelSpec, MoE
from edgeq.model.tensors import tensors
from edgeq.scheme import Grid

Array = npt.NDArray[Any]
F32 = npt.NDArray[np.float32]
ROLES = ("gate", "up", "down")
SMALLEST, LARGEST = 16, 128  # block sizes; the kernels are written for up to 128


def fits(checkpoint: Weights, layer: int) -> bool:
    """One node of onnxruntime's can run the experts of the layer."""
    spec = checkpoint.spec
    ffn = spec.layers[layer].ffn
    assert isinstance(ffn, MoE)
    names = [f"layers.{layer}.experts_{r}" for r in ROLES]
    if (ffn.limit is None and ffn.activation != "silu") or any(activation_of(checkpoint, n) for n in names):
        return False
    grids = {t.name: grid_of(checkpoint, t) for t in tensors(spec) if t.name in names}
    return _of_one_node(spec, ffn, [grids[n] for n in names])


def _of_one_node(spec: ModelSpec, ffn: MoE, grids: list[Grid]) -> bool:
    """Gate, up and down on grids that the kernels take together."""
    if all(g.kind == "float" for g in grids):
        return True
    plain = all(g.kind == "int" and g.zero != "float" and g.super_size is None for g in grids)
    same = len({g.bits for g in grids}) == 1 and grids[0].bits in EXPERT_BITS
    return plain and same and grids[0].symmetric == grids[1].symmetric and block_of(spec, ffn, grids) is not None


def block_of(spec: ModelSpec, ffn: MoE, grids: list[Grid]) -> int | None:
    """The largest block that divides every group and both widths; None: none does."""
    sizes = [g.group_size for g in grids if g.group_size != -1]
    common = math.gcd(spec.hidden_size, ffn.intermediate, LARGEST, *sizes)
    return common if common >= SMALLEST else None


class ExpertNodes:
    """Emits the experts of layers.

    Args:
        accuracy_level: as of `MatMulNBits`.
    """

    def __init__(self, graph: Graph, weights: Weights, accuracy_level: int) -> None:
        self._graph, self._weights, self._level = graph, weights, accuracy_level

    def routed(self, x: str, layer: int, spec: MoE) -> str:
        """What the routed experts give for x (batch, tokens, hidden)."""
        at = f"layers.{layer}"
        logits = self._logits(x, f"{at}.router", spec)
        experts = {r: self._weights.load(f"{at}.experts_{r}") for r in ROLES}
        attributes: dict[str, Any] = {"k": spec.active, "activation_type": "swiglu", "swiglu_fusion": 1}
        if spec.limit is None:
            attributes |= {"activation_alpha": 1.0, "activation_beta": 0.0}
        else:
            attributes |= {"activation_alpha": spec.alpha, "activation_beta": 1.0, "swiglu_limit": spec.limit}
        attributes["normalize_routing_weights"] = 1
        quantized = [w for w in experts.values() if isinstance(w, QuantizedTensor)]
        if not quantized:
            y = self._moe(x, logits, at, spec, self._floats(at, spec, experts), attributes)
        elif self._level == 0 and quantized[0].grid.bits != 4:
            y = self._moe(x, logits, at, spec, self._dequantized(at, spec, quantized), attributes)
        else:
            y = self._qmoe(x, logits, at, spec, quantized, attributes)
        return y if spec.routing == "top" else self._shrunk(x, y, logits, f"{at}.router", spec)

    def _logits(self, x: str, name: str, spec: MoE) -> str:
        """(tokens, experts)."""
        graph = self._graph
        weight = graph.numbers(name, np.ascontiguousarray(dense(self._weights.load(name)).T))
        y = graph.add("MatMul", [x, weight], f"{name}.out")
        if spec.router_bias:
            bias = graph.numbers(f"{name}_bias", dense(self._weights.load(f"{name}_bias")))
            y = graph.add("Add", [y, bias], f"{name}.biased")
        rows = graph.constant(f"router_rows_{spec.experts}", np.array([-1, spec.experts], np.int64))
        return graph.add("Reshape", [y, rows], f"{name}.logits")

    def _moe(
        self, x: str, logits: str, at: str, spec: MoE, matrices: tuple[str, str], attributes: dict[str, Any]
    ) -> str:
        both, down = self._biases(at, spec)
        inputs = [x, logits, matrices[0], both, matrices[1], down]
        return self._graph.add("MoE", inputs, f"{at}.experts", domain=MICROSOFT, **attributes)

    def _floats(self, at: str, spec: MoE, experts: dict[str, Weight]) -> tuple[str, str]:
        gate, up, down = (dense(experts[r]) for r in ROLES)
        wide = (spec.experts, 2 * spec.intermediate, gate.shape[-1])
        pairs = (in_turns(g, u) for g, u in zip(gate, up, strict=True))
        both = self._graph.stream(f"{at}.experts_gate_up", self._graph.floats, wide, pairs)
        return both, self._graph.stream(f"{at}.experts_down", self._graph.floats, down.shape, [down])

    def _dequantized(self, at: str, spec: MoE, parts: list[QuantizedTensor]) -> tuple[str, str]:
        """Codes of a byte each, and the node that makes them float32 when the graph is loaded."""
        block = self._block(spec, parts)
        names = []
        for name, members in ((f"{at}.experts_gate_up", parts[:2]), (f"{at}.experts_down", parts[2:])):
            stored = self._store(name, spec, members, block, packed=False)
            names.append(self._graph.add("DequantizeLinear", stored, f"{name}.values", axis=2, block_size=block))
        return names[0], names[1]

    def _qmoe(
        self, x: str, logits: str, at: str, spec: MoE, parts: list[QuantizedTensor], attributes: dict[str, Any]
    ) -> str:
        block = self._block(spec, parts)
        both = self._store(f"{at}.experts_gate_up", spec, parts[:2], block)
        down = self._store(f"{at}.experts_down", spec, parts[2:], block)
        biases = self._biases(at, spec)
        inputs = [x, logits, *both[:2], biases[0], *down[:2], biases[1], "", "", "", both[2], down[2]]
        return self._graph.add(
            "QMoE",
            inputs,
            f"{at}.experts",
            domain=MICROSOFT,
            expert_weight_bits=parts[0].grid.bits,
            block_size=block,
            accuracy_level=self._level,
            **attributes,
        )

    def _block(self, spec: MoE, parts: list[QuantizedTensor]) -> int:
        block = block_of(self._weights.spec, spec, [p.grid for p in parts])
        assert block is not None and len(parts) == len(ROLES), "see fits"
        return block

    def _store(
        self, name: str, spec: MoE, parts: list[QuantizedTensor], block: int, *, packed: bool = True
    ) -> tuple[str, str, str]:
        """Codes, scales and zero points of stacked matrices, the rows of two in turns; an expert at a time.

        Args:
            packed: several codes a byte, and zero points only where the grid has them; else a byte each.
        """
        grid, columns = parts[0].grid, parts[0].shape[1]
        rows = sum(p.shape[0] for p in parts) // spec.experts
        blocks = columns // block
        bits = grid.bits if packed else 8
        graph = self._graph

        def each(part: str, dtype: Any, width: int, made: Callable[[QuantizedTensor], Array]) -> str:
            apart = ([expert_of(p, e, spec.experts) for p in parts] for e in range(spec.experts))
            values = (in_turns(*(made(w) for w in of_one if isinstance(w, QuantizedTensor))) for of_one in apart)
            return graph.stream(f"{name}.{part}", dtype, (spec.experts, rows, width), values)

        codes = each("codes", np.uint8, columns * bits // 8, lambda q: pack_bits(q.codes, bits))
        scales = each("scales", graph.floats, blocks, lambda q: _per_block(q, q.scales, block))
        if grid.symmetric and packed:
            return codes, scales, ""
        width = -(-blocks * bits // 8)
        return codes, scales, each("zeros", np.uint8, width, lambda q: pack_bits(_per_block(q, _zeros(q), block), bits))

    def _shrunk(self, x: str, y: str, logits: str, at: str, spec: MoE) -> str:
        """`y`, made with weights that add up to one, by what those of a softmax over all experts add up to."""
        graph = self._graph
        weights = graph.add("Softmax", [logits], f"{at}.weights", axis=-1)
        count = graph.constant(f"active_{spec.active}", np.array([spec.active], np.int64))
        graph.add("TopK", [weights, count], [f"{at}.largest", f"{at}.chosen"], axis=-1)
        last = graph.constant("last_axis", np.array([-1], np.int64))
        total = graph.add("ReduceSum", [f"{at}.largest", last], f"{at}.share", keepdims=1)
        shape = graph.add("Shape", [x], f"{at}.tokens", end=2)
        one = graph.constant("one", np.array([1], np.int64))
        column = graph.add("Concat", [shape, one], f"{at}.column", axis=0)
        return graph.add("Mul", [y, graph.add("Reshape", [total, column], f"{at}.shares")], f"{y}.weighed")

    def _biases(self, at: str, spec: MoE) -> tuple[str, str]:
        if not spec.expert_bias:
            return "", ""
        gate, up, down = (dense(self._weights.load(f"{at}.experts_{r}_bias")) for r in ROLES)
        both = np.stack((gate, up), -1).reshape(spec.experts, -1)
        graph = self._graph
        return graph.numbers(f"{at}.experts_gate_up_bias", both), graph.numbers(f"{at}.experts_down_bias", down)


def _zeros(q: QuantizedTensor) -> Array:
    """uint8 (rows, groups): zero points, the middle of the codes on a symmetric grid."""
    if q.zero_points is None:
        return np.full(q.scales.shape, q.grid.levels >> 1, np.uint8)
    return q.zero_points.astype(np.uint8)


def _per_block(q: QuantizedTensor, values: Array, block: int) -> Array:
    """Parameters of groups repeated for every block of the group."""
    blocks = q.shape[1] // block
    repeat = blocks if q.grid.group_size == -1 else q.grid.group_size // block
    return np.repeat(values, repeat, axis=1)[:, :blocks]
