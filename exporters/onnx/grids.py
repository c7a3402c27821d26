"""Which grids onnxruntime's CPU kernels run fast, and the block size each is stored with.

Measured facts behind the limits: `MatMulNBits` takes 2, 4 and 8 bits and blocks of 16 to 256 channels; 2-bit codes
have a fast kernel only for blocks of 32, 64 and 128; a zero point that isn't an integer turns prepacking off.
"""

from __future__ import annotations

from edgeq.scheme import Grid

_BLOCKS = {2: (32, 64, 128), 4: (16, 32, 64, 128, 256), 8: (16, 32, 64, 128, 256)}
_ROW_BLOCK = 128  # one scale a row is repeated every 128 channels: the widest block that all three kernels take


def refuses(grid: Grid) -> str | None:
    """Why a tensor on `grid` can't be stored without loss for fast kernels, or None when it can."""
    if grid.kind == "float":
        return None
    if grid.kind == "gguf":
        return f"{grid.ggml_type or 'a gguf type'} is llama.cpp's own block format; export to gguf"
    if grid.kind == "codebook":
        return f"onnxruntime's fast kernels take evenly spaced values only, not the codebook {grid.codebook}"
    if grid.bits not in _BLOCKS:
        return f"onnxruntime has no {grid.bits}-bit kernel, only 2, 4 and 8 bits"
    if grid.zero == "float":
        return "onnxruntime is 100 times slower with zero points that are not integers"
    if block_size(grid) is None:
        sizes = ", ".join(map(str, _BLOCKS[grid.bits]))
        return f"groups of {grid.group_size} can't be split into {grid.bits}-bit blocks of {sizes}"
    return None


def block_size(grid: Grid) -> int | None:
    """Channels of one stored block: the group, or the largest block that divides it (its scale is then repeated)."""
    if grid.group_size == -1:
        return _ROW_BLOCK
    fitting = [b for b in _BLOCKS.get(grid.bits, ()) if grid.group_size % b == 0]
    return max(fitting, default=None)
