"""llama.cpp's super-blocks: 256 weights in groups whose scales (and minima) are small codes on an f16 number.

A weight is `d * s * code - dmin * m` (Q2_K, Q4_K, Q5_K: scale codes `s` and minimum codes `m` of 4 or 6 bits) or
`d * s * level` (Q3_K, Q6_K, IQ4_XS: signed scale codes, levels around zero or of a codebook). `search` finds all of it
for the least importance-weighted squared error: first every group's own best scale and minimum, then super-scales on
which those can be told apart, then the codes, each judged by the error that rounding the weights with it leaves.

ggml's quantizers (`make_qkx3_quants`, `make_qp_quants`, `make_qx_quants` in ggml-quants.c) take the group's scales as
found and round them to codes; here the codes are searched too, which is where most of the gain lies.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgeq.checkpoint.codebooks import codebook
from edgeq.checkpoint.tensor import Parameters
from edgeq.errors import EdgeqError
from edgeq.estimate.ggml import stored_type
from edgeq.quantize.grids.groups import checked, in_threads, refused_groups, row_blocks
from edgeq.quantize.grids.superblock_affine import AffineSearch
from edgeq.quantize.grids.superblock_affine import Found as Affine
from edgeq.quantize.grids.superblock_layout import Laid, laid
from edgeq.quantize.grids.superblock_signed import Found as Signed
from edgeq.quantize.grids.superblock_signed import SignedSearch
from edgeq.scheme import F16, GGML_GRIDS, Grid

Floats = npt.NDArray[np.float32]


def refuses(grid: Grid, shape: tuple[int, ...]) -> str | None:
    """Why a tensor of this shape can't be stored on this grid, or None when it can."""
    if len(shape) != 2:
        return f"a super-block grid needs a matrix, this has {len(shape)} dimensions"
    if grid.kind != "gguf" or grid.super_size is None or not grid.scale_bits:
        return f"{grid} has no super-blocks of llama.cpp"
    return refused_groups(grid, shape)


def fallback(ggml_type: str, columns: int) -> str:
    """What llama.cpp stores rows of so many weights as, where this type was wanted: the type itself where it fits."""
    return stored_type(ggml_type, columns)


def fitting(grid: Grid, columns: int) -> Grid:
    """The grid itself, or where it is a block type that rows of so many weights don't fill, llama.cpp's fallback."""
    if grid.ggml_type is None:
        return grid
    return GGML_GRIDS.get(fallback(grid.ggml_type, columns), F16)


def search(weight: Floats, importance: Floats | None, grid: Grid) -> Parameters:
    """The parameters with the least `sum(importance * (weight - dequantized)**2)` that a fine search finds.

    Never worse than `min_max`, which is among the candidates.

    Args:
        weight: float32 (rows, columns), columns a multiple of 256.
        importance: float32 (columns,), not negative: the mean square of each input channel; None: all alike.

    Raises:
        EdgeqError: the grid or the shape is refused, or a weight or an importance is not finite.
    """
    return _by_super_blocks(weight, importance, grid, fine=True)


def min_max(weight: Floats, grid: Grid) -> Parameters:
    """Scales that span each group's range, as codes of the largest of a super-block."""
    return _by_super_blocks(weight, None, grid, fine=False)


def _by_super_blocks(weight: Floats, importance: Floats | None, grid: Grid, *, fine: bool) -> Parameters:
    why = refuses(grid, weight.shape)
    if why:
        raise EdgeqError(f"this weight can't be quantized: {why}")
    rows, columns = weight.shape
    importance = checked(importance, columns)
    size, super_size = grid.group_size, grid.super_size or columns
    found = _empty(grid, rows, columns)

    # Weights beyond what half precision can scale: their error is infinite, and loses against any other.
    @np.errstate(over="ignore", invalid="ignore", under="ignore")
    def work(part: slice) -> None:
        block = weight[part]
        if not np.isfinite(block).all():
            raise EdgeqError("this weight holds values that are not finite", hint="The source file is damaged")
        b = laid(block, importance, size, super_size)
        best = _find(b, grid, fine=fine)
        _store(found.rows(part), b, best)

    in_threads(work, row_blocks(rows, columns))
    return found


def _find(b: Laid, grid: Grid, *, fine: bool) -> Affine | Signed:
    if grid.zero == "float":
        affine = AffineSearch(b, grid.levels - 1, (1 << grid.scale_bits) - 1)
        return affine.run() if fine else affine.min_max()
    half = grid.levels >> 1
    levels = codebook(grid.codebook) if grid.codebook else np.arange(-half, half, dtype=np.float32)
    signed = SignedSearch(b, levels, grid.scale_bits, uniform=grid.codebook is None)
    return signed.run() if fine else signed.min_max()


def _empty(grid: Grid, rows: int, columns: int) -> Parameters:
    assert grid.super_size is not None
    groups, supers = (rows, columns // grid.group_size), (rows, columns // grid.super_size)
    if grid.symmetric:
        return Parameters(np.empty(groups, np.int8), None, np.empty(supers, np.float16))
    codes = np.empty(groups, np.uint8), np.empty(groups, np.uint8)
    return Parameters(*codes, np.empty(supers, np.float16), np.empty(supers, np.float16))


def _store(out: Parameters, b: Laid, best: Affine | Signed) -> None:
    """Into views of the rows that `b` holds."""
    assert out.super_scales is not None
    out.scales[...] = b.per_super(best.scale).T.reshape(out.scales.shape)
    out.super_scales[...] = b.halves(best.d).reshape(out.super_scales.shape)
    if isinstance(best, Affine):
        assert out.zero_points is not None and out.super_zeros is not None
        out.zero_points[...] = b.per_super(best.minimum).T.reshape(out.scales.shape)
        out.super_zeros[...] = b.halves(best.dmin).reshape(out.super_zeros.shape)
