"""Products of matrices with inputs that are rounded to 8 bits (W8A8), in operators onnxruntime multiplies in integers.

A weight with one scale a row is stored as int8 (K, N). Inputs become uint8: int8 ones took 30 times as long on x86-64.

- static: `QuantizeLinear` by the grid's scale and zero point, `MatMul` of two `DequantizeLinear`, which onnxruntime
  fuses into `MatMulIntegerToFloat`.
- static, 16 bits: the code is split into a coarse and a fine byte, each multiplied in integers; no code is lost.
- dynamic: `DynamicQuantizeLinear`, `MatMulInteger`, `Cast` and `Mul`, fused into one `DynamicQuantizeMatMul`. It has
  one grid a tensor where a checkpoint has one a token. So every token is divided by its own largest magnitude before
  and multiplied by it after (`token`): a single token then has exactly its grid, and those of a prompt have a grid
  that spans what the widest of them spans after division, at worst twice their own step. Without (`tensor`) the
  largest value of a prompt sets the step of all its tokens.

Weights on other grids multiply the rounded values as they multiply float ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from edgeq.checkpoint.activation import ActivationGrid
from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.checkpoint.weights import Weight
from edgeq.exporters.onnx.graph import Graph
from edgeq.exporters.onnx.matrices import Matrices

F32 = npt.NDArray[np.float32]
SCALES = ("token", "tensor")  # what shares a dynamic scale
_MIDDLE = 128  # of the codes of a byte
_COARSE = 257  # fine codes of a coarse one: 255 * 257 = 65,535, so two bytes span the range wherever its zero lies
_TINIEST = np.finfo(np.float32).tiny  # the magnitude of a token that is all zeros


def refuses_activation(grid: ActivationGrid) -> str | None:
    """Why inputs on this grid can't be computed, or None when they can."""
    if grid.bits == 8 or (grid.kind, grid.bits, grid.symmetric) == ("static", 16, False):
        return None
    kind = f"{grid.bits}-bit {'symmetric' if grid.symmetric else 'asymmetric'} {grid.kind}"
    return f"its inputs have 8 bits, or 16 where they are static and asymmetric, not {kind} ones"


def by_row(weights: Sequence[Weight]) -> list[QuantizedTensor] | None:
    """The weights, where all of them have 8-bit codes and one scale a row; None: they don't."""
    found = [w for w in weights if isinstance(w, QuantizedTensor) and w.grid.kind == "int" and w.grid.bits == 8]
    return found if len(found) == len(weights) and all(w.grid.group_size == -1 for w in found) else None


class RoundedProducts:
    """Emits products with rounded inputs.

    Args:
        matrices: emits the products of weights on other grids.
        scales: of dynamic grids, one of `SCALES`.
    """

    def __init__(self, graph: Graph, matrices: Matrices, scales: str) -> None:
        self._graph = graph
        self._matrices = matrices
        self._of_tokens = scales == "token"
        self._zeros: dict[str, str] = {}  # of the weights that have zero points

    def product(self, x: str, name: str, weights: Sequence[Weight], bias: F32 | None, grid: ActivationGrid) -> str:
        """`rounded(x) @ concat(weights).T + bias`."""
        rows = by_row(weights)
        if rows is None:
            return self._matrices.product(self._rounded(x, name, grid), name, weights, bias)
        self._store(name, rows)
        y = self._static(x, name, grid) if grid.kind == "static" else self._dynamic(x, name, grid)
        if bias is None:
            return y
        return self._graph.add("Add", [y, self._graph.constant(f"{name}.bias", bias)], f"{name}.biased")

    def _store(self, name: str, weights: Sequence[QuantizedTensor]) -> None:
        """Codes int8 (K, N), scales and zero points (N,), rows of all weights one after the other."""
        codes = np.concatenate([w.codes for w in weights])
        self._graph.stream(f"{name}.codes", np.int8, codes.T.shape, [_signed(codes).T])
        self._constant(f"{name}.scales", np.concatenate([w.scales[:, 0] for w in weights]).astype(np.float32))
        if any(w.zero_points is not None for w in weights):
            zeros = np.concatenate([_zero_points(w) for w in weights])
            self._zeros[name] = self._constant(f"{name}.zeros", _signed(zeros))

    def _static(self, x: str, name: str, grid: ActivationGrid) -> str:
        scale, zero = _scale_and_zero(grid)
        if grid.bits == 8:
            x = self._byte(self._clipped(x, name, grid), f"{name}.in", scale, zero)
            return self._fused(x, name, f"{name}.out")
        coarse = self._byte(x, f"{name}.coarse", _COARSE * scale, round(zero / _COARSE))
        rest = self._graph.add("Sub", [x, coarse], f"{name}.rest")
        fine = self._byte(rest, f"{name}.fine", scale, _MIDDLE)
        again = self._graph.alias(f"{name}.codes_again", f"{name}.codes")
        parts = [self._fused(coarse, name, f"{coarse}.out"), self._fused(fine, name, f"{fine}.out", codes=again)]
        return self._graph.add("Add", parts, f"{name}.out")

    def _dynamic(self, x: str, name: str, grid: ActivationGrid) -> str:
        if grid.symmetric:
            steps, scale = self._symmetric(x, name)
            return self._graph.add("Mul", [self._fused(steps, name, f"{name}.unscaled"), scale], f"{name}.out")
        if not self._of_tokens:
            return self._fused_dynamic(x, name, f"{name}.out")
        unit, magnitude = self._divided(x, name)
        y = self._fused_dynamic(unit, name, f"{name}.unscaled")
        return self._graph.add("Mul", [y, magnitude], f"{name}.out")

    def _rounded(self, x: str, name: str, grid: ActivationGrid) -> str:
        """The values that `x` takes on the grid, float32."""
        y = f"{name}.rounded"
        if grid.kind == "static":
            scale, zero = _scale_and_zero(grid)
            dtype = np.uint8 if grid.bits == 8 else np.uint16
            return self._qdq(self._clipped(x, name, grid), y, scale, dtype(zero))
        if grid.symmetric:
            return self._graph.add("Mul", [*self._symmetric(x, name)], y)
        unit, magnitude = self._divided(x, name) if self._of_tokens else (x, "")
        parts = [f"{y}.{part}" for part in ("codes", "scale", "zero")]
        self._graph.add("DynamicQuantizeLinear", [unit], parts)
        if not magnitude:
            return self._graph.add("DequantizeLinear", parts, y)
        return self._graph.add("Mul", [self._graph.add("DequantizeLinear", parts, f"{y}.unit"), magnitude], y)

    def _symmetric(self, x: str, name: str) -> tuple[str, str]:
        """Whole steps of each token's scale, and the scales (batch, tokens, 1)."""
        top = self._constant("codes_each_side", np.float32(_MIDDLE - 1))
        scale = self._graph.add("Div", [self._magnitude(x, name), top], f"{name}.in.scale")
        return self._byte(self._graph.add("Div", [x, scale], f"{name}.in.steps"), f"{name}.in", 1.0, _MIDDLE), scale

    def _divided(self, x: str, name: str) -> tuple[str, str]:
        """Every token divided by its largest magnitude, and the magnitudes (batch, tokens, 1)."""
        magnitude = self._magnitude(x, name)
        return self._graph.add("Div", [x, magnitude], f"{name}.in.unit"), magnitude

    def _magnitude(self, x: str, name: str) -> str:
        axis, tiniest = self._constant("width_axis", np.array([-1], np.int64)), self._constant("tiniest", _TINIEST)
        each = self._graph.add("Abs", [x], f"{name}.in.each")
        largest = self._graph.add("ReduceMax", [each, axis], f"{name}.in.largest", keepdims=1)
        return self._graph.add("Max", [largest, tiniest], f"{name}.in.magnitude")

    def _fused(self, x: str, name: str, output: str, codes: str | None = None) -> str:
        """`x`, a `DequantizeLinear`, times the stored weight, as onnxruntime fuses it."""
        stored = [codes or f"{name}.codes", f"{name}.scales", self._zeros.get(name, "")]
        weight = self._graph.add("DequantizeLinear", stored, f"{output}.weight", axis=1)
        return self._graph.add("MatMul", [x, weight], output)

    def _fused_dynamic(self, x: str, name: str, output: str) -> str:
        """`x` rounded to the grid of its own range, times the stored weight, as onnxruntime fuses it."""
        codes, scale, zero = (f"{name}.in.{part}" for part in ("codes", "scale", "zero"))
        self._graph.add("DynamicQuantizeLinear", [x], [codes, scale, zero])
        factors = [codes, f"{name}.codes", zero, self._zeros.get(name, "")]
        whole = self._graph.add("MatMulInteger", factors, f"{name}.whole")
        wide = self._graph.add("Cast", [whole], f"{name}.wide", to=TensorProto.FLOAT)
        return self._graph.add(
            "Mul", [wide, self._graph.add("Mul", [scale, f"{name}.scales"], f"{name}.both_scales")], output
        )

    def _clipped(self, x: str, name: str, grid: ActivationGrid) -> str:
        """A symmetric grid has no code -128."""
        if not grid.symmetric:
            return x
        step = _scale_and_zero(grid)[0]
        ends = [self._constant(f"{name}.in.end{i}", np.float32(code * step)) for i, code in enumerate(grid.codes)]
        return self._graph.add("Clip", [x, *ends], f"{name}.in.clipped")

    def _byte(self, x: str, output: str, scale: float, zero: int) -> str:
        return self._qdq(x, output, scale, np.uint8(zero))

    def _qdq(self, x: str, output: str, scale: float, zero: np.unsignedinteger[Any]) -> str:
        grid = [self._constant(f"{output}.step", np.float32(scale)), self._constant(f"{output}.middle", zero)]
        return self._graph.add(
            "DequantizeLinear", [self._graph.add("QuantizeLinear", [x, *grid], f"{output}.bytes"), *grid], output
        )

    def _constant(self, name: str, value: Any) -> str:
        return self._graph.constant(name, np.asarray(value))


def _scale_and_zero(grid: ActivationGrid) -> tuple[float, int]:
    """Of a static grid, as an unsigned code has them."""
    assert grid.scale is not None and grid.zero_point is not None
    return grid.scale, grid.zero_point + (_MIDDLE if grid.symmetric else 0)


def _signed(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.int8]:
    """uint8 codes around 128 as int8 around 0."""
    return (codes ^ np.uint8(_MIDDLE)).view(np.int8)


def _zero_points(weight: QuantizedTensor) -> npt.NDArray[np.uint8]:
    if weight.zero_points is None:
        return np.full(weight.shape[0], _MIDDLE, np.uint8)
    return weight.zero_points[:, 0].astype(np.uint8)
