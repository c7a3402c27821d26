"""How the ONNX exporter stores a grid: on onnxruntime's kernels for 2, 4 and 8 bits, or unpacked by a function.

Measured facts behind the limits: `MatMulNBits`, to which a blocked `DequantizeLinear` is fused, takes 2, 4 and 8 bits
and blocks of 16 to 256 channels; 2-bit codes have a fast kernel only for blocks of 32, 64 and 128.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Literal

from edgeq.checkpoint.integer_grids import integer_bits, integer_grid
from edgeq.scheme import Grid, Scheme

Pack = Literal["fast", "small"]
PACKS = ("fast", "small")
BLOCKS = {2: (32, 64, 128), 4: (16, 32, 64, 128, 256), 8: (16, 32, 64, 128, 256)}
_ROW_BLOCK = 128  # one scale a row is repeated every 128 channels: the widest block that all three kernels take


def block_size(grid: Grid) -> int | None:
    """Channels of one stored block: the group, or the largest block that divides it (its scale is then repeated)."""
    if grid.group_size == -1:
        return _ROW_BLOCK if grid.bits in BLOCKS else None
    fitting = [b for b in BLOCKS.get(grid.bits, ()) if grid.group_size % b == 0]
    return max(fitting, default=None)


@lru_cache(maxsize=512)
def kernel_grid(grid: Grid, pack: Pack = "fast") -> Grid | None:
    """The integer grid whose kernel runs a weight on `grid`, or None where a function has to unpack its codes.

    On a grid with minima those are another product, of a small float matrix. `small` keeps a grid that has them, or
    whose codes would need more bits there than they have.
    """
    needed = integer_bits(grid)
    if needed is None or (grid.zero == "float" and pack == "small"):
        return None
    for bits in BLOCKS:
        if needed <= bits and block_size(integer_grid(grid, bits)) is not None:
            return integer_grid(grid, bits) if bits == grid.bits or pack == "fast" else None
    return None


def on_kernels(scheme: Scheme) -> Scheme:
    """The scheme with the grids that its matrices are stored on where a kernel runs them, and its own elsewhere."""
    head = None if scheme.head is None else kernel_grid(scheme.head) or scheme.head
    linear, embed = (kernel_grid(g) or g for g in (scheme.linear, scheme.embed))
    return replace(scheme, linear=linear, embed=embed, head=head)
