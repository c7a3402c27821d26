"""Which grids OpenVINO's plugins keep compressed and multiply in one FullyConnected, and as what they are stored.

Measured with OpenVINO 2026.4's CPU plugin: u2, u4, i4, u8, i8, nf4 and f4e2m1 weights become one compressed
FullyConnected in groups of any size from 4 on and with one scale a row, and compute `(code - zero) * scale` in float32
with the scale as it is stored, float16 or float32. Groups of 2 or 3 are unpacked to float32, and so is all else.
Rows of an embedding are computed as `code * scale - zero * scale`, which is the same number where both products are
exact: with scales that have no more than 16 binary digits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from edgeq.checkpoint.integer_grids import unreadable
from edgeq.checkpoint.integers import Shifted, held_by, without_zero_points
from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.checkpoint.weights import Weight
from edgeq.errors import EdgeqError
from edgeq.estimate.openvino_grids import expert_grid, stored_grid
from edgeq.scheme import Grid

_SMALLEST = 4  # channels of a group
_TYPES = {(2, True): "u2", (2, False): "u2", (4, True): "i4", (4, False): "u4", (8, True): "i8", (8, False): "u8"}
_TABLES = {"nf4": "nf4", "fp4": "f4e2m1", "ternary": "u2"}
TYPE_BITS = {"u2": 2, "u4": 4, "i4": 4, "u8": 8, "i8": 8, "nf4": 4, "f4e2m1": 4}
Held = Weight | Shifted
ROWS_COMPRESSED = ("u4", "i4", "u8", "i8")  # types whose rows the CPU plugin looks up without unpacking the table


@dataclass(frozen=True, slots=True)
class Layout:
    """How a (rows, columns) matrix is stored; matrices that agree in it can lie one below the other.

    Attributes:
        type: OpenVINO's element type of the codes, or `f16` and `f32` for a float matrix.
        block: channels that share a stored scale, `columns` for one a row.
        zeros: a zero point is stored for every block.
        middle: without them, the code that stands for zero where the type has no signs.
        scale: element type of the scales.
        offsets: a float32 number is added to every block: the grid has minima.
    """

    type: str
    columns: int
    block: int
    zeros: bool = False
    middle: int | None = None
    scale: str = "f16"
    offsets: bool = False

    @property
    def quantized(self) -> bool:
        return self.type in TYPE_BITS

    @property
    def blocks(self) -> int:
        return self.columns // self.block


def refuses(grid: Grid) -> str | None:
    """Why a tensor on `grid` can't be stored losslessly for fast kernels, or None when it can."""
    why = unreadable(grid)
    if why is not None or stored_grid(grid) is not None:
        return why
    return f"OpenVINO has no type for the codebook {grid.codebook}, but {', '.join(_TABLES)}"


def as_stored(weight: Weight) -> Held:
    """A weight on a storable grid on the one that it is stored on, with the same numbers."""
    if not isinstance(weight, QuantizedTensor):
        return weight
    grid = stored_grid(weight.grid)
    assert grid is not None, "`check` refuses it"
    held = weight if grid == weight.grid else held_by(weight, grid.bits)
    return without_zero_points(held) if isinstance(held, Shifted) else held


def check(grid: Grid, columns: int, name: str, *, expert: bool = False) -> None:
    """Raise an EdgeqError, naming the tensor, when rows of so many columns on this grid can't be stored."""
    why = refuses(grid) or (_refuses_expert(grid) if expert else None)
    held = expert_grid(grid) if expert else grid
    if why is None and held is not None:
        why = _refuses_shape(held, columns)
    if why is not None:
        raise EdgeqError(f"this checkpoint can't be exported to openvino: {why}", where=name)


def _refuses_expert(grid: Grid) -> str | None:
    if expert_grid(grid) is None:
        other = "minima" if grid.zero == "float" else f"{grid.codebook} ones"
        return f"its product with chosen experts takes 4 and 8 bits and integer zero points, no {other}"
    return None


def _refuses_shape(grid: Grid, columns: int) -> str | None:
    if grid.kind == "float":
        return None
    form = layout(grid, columns)
    if form.block < min(_SMALLEST, columns):
        return f"rows of {columns} can't be split into groups that divide {grid.group_size}, of 4 channels or more"
    if columns * TYPE_BITS[form.type] % 8:
        return f"rows of {columns} codes of {TYPE_BITS[form.type]} bits are no whole bytes"
    return None


def layout_of(held: Held, planned: Grid) -> Layout:
    """How a weight that `as_stored` gave lies in the file; `planned` is a float weight's grid."""
    if isinstance(held, Shifted):
        return replace(layout(held.integers.grid, held.shape[1]), offsets=True)
    return layout(held.grid if isinstance(held, QuantizedTensor) else planned, held.shape[1])


def layout(wanted: Grid, columns: int) -> Layout:
    """How a matrix on a storable grid lies in the file: on its `stored_grid`.

    Groups that don't divide a row are split into equal smaller ones, with the scale repeated: the last, ragged group
    of the grid then is a whole number of these.
    """
    grid = stored_grid(wanted)
    assert grid is not None, "`check` refuses it"
    if grid.kind == "float":
        return Layout("f16" if grid.bits == 16 else "f32", columns, columns)
    block = columns if grid.group_size == -1 else math.gcd(grid.group_size, columns)
    scale = "f32" if grid.super_size is not None else grid.scale_dtype
    if grid.kind == "codebook":
        kind = _TABLES[grid.codebook or ""]
        return Layout(kind, columns, block, middle=1 if kind == "u2" else None, scale=scale)
    kind = _TYPES[grid.bits, grid.symmetric]
    unsigned = grid.symmetric and kind == "u2"
    return Layout(kind, columns, block, not grid.symmetric, 2 if unsigned else None, scale, wanted.zero == "float")
