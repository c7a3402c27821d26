"""What all grid searches share: groups laid out for numpy, threads over row blocks, scales as they are stored."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.checkpoint.tensor import Parameters, groups_of
from edgeq.errors import EdgeqError
from edgeq.scheme import Grid

Floats = npt.NDArray[np.float32]
SCALE_DTYPE: dict[str, np.dtype[Any]] = {"f16": np.dtype(np.float16), "f32": np.dtype(np.float32)}
SMALLEST = {"f16": 2.0**-24, "f32": float(np.finfo(np.float32).tiny)}
LARGEST = {"f16": 65504.0, "f32": float(np.finfo(np.float32).max)}

BLOCK = 1 << 16  # weights worked on at once: a handful of such arrays stay in a core's L2 cache
TRANSPOSE_BELOW = 512  # shorter groups are laid out across, so that numpy's inner loops stay long

# A group finder works on (group, n) or (n, group) weights; `axis` is the group's. It gives scales and what the grid
# stores beside them (zero points or minima; ignored on a grid without), each one a group.
Finder = Callable[[Floats, "Floats | None", Grid, int], tuple[Floats, Floats]]


def refused_groups(grid: Grid, shape: tuple[int, ...]) -> str | None:
    """Why a matrix can't be cut into this grid's groups: ggml's blocks must be whole, others may have a ragged last."""
    if grid.group_size != -1 and grid.group_size < 2:
        return f"a group of {grid.group_size} weights"
    if grid.kind == "gguf":
        block = grid.super_size or grid.group_size
        if shape[-1] % block:
            return f"{grid.ggml_type} needs rows of a multiple of {block} weights, these have {shape[-1]}"
    return None


def accepted(weight: Floats, why: str | None) -> Floats:
    """The weight, unless there is a reason why its grid does not take it.

    Raises:
        EdgeqError: there is one.
    """
    if why:
        raise EdgeqError(f"this weight can't be quantized: {why}")
    return weight


def by_groups(weight: Floats, importance: Floats | None, grid: Grid, find: Finder, *, blocks: int = 1) -> Parameters:
    """Run `find` over all groups of a (rows, columns) weight, a ragged last group included, in threads.

    Args:
        weight: float32 (rows, columns).
        importance: float32 (columns,), not negative; None: all alike.
        blocks: how many times `BLOCK` weights are worked on at once.

    Raises:
        EdgeqError: a weight or an importance is not finite, or the importance has another length.
    """
    rows, columns = weight.shape
    importance = checked(importance, columns)
    size = columns if grid.group_size == -1 else min(grid.group_size, columns)
    whole, groups = columns // size, groups_of(columns, size)
    scales = np.empty((rows, groups), SCALE_DTYPE[grid.scale_dtype])
    zeros = np.empty((rows, groups), np.uint8 if grid.zero == "int" else SCALE_DTYPE[grid.scale_dtype])

    # A weight beyond half precision's range: its error is infinite, and said so.
    @np.errstate(over="ignore", invalid="ignore")
    def work(part: slice) -> None:
        block = weight[part]
        if not np.isfinite(block).all():
            raise EdgeqError("this weight holds values that are not finite", hint="The source file is damaged")
        for a, b, width in ((0, whole, size), (whole, groups, columns - whole * size)):
            if a == b:
                continue
            columns_here = slice(a * size, a * size + (b - a) * width)
            weights = None if importance is None else importance[columns_here]
            s, z = in_layout(block[:, columns_here], weights, width, grid, find)
            scales[part, a:b], zeros[part, a:b] = s, z

    in_threads(work, row_blocks(rows, columns, blocks * BLOCK))
    return Parameters(scales, None if grid.symmetric else zeros)


def checked(importance: Floats | None, columns: int) -> Floats | None:
    """The importance as float32, scaled to a mean of 1 so that sums keep within range; None where it is all zero."""
    if importance is None:
        return None
    if importance.shape != (columns,):
        raise EdgeqError(f"importance of {importance.shape} for {columns} columns")
    if not np.isfinite(importance).all() or (importance < 0).any():
        raise EdgeqError("the importance of an input is negative or not finite", hint="Calibrate again")
    mean = float(importance.mean(dtype=np.float64))
    return None if mean == 0 else (importance / mean).astype(np.float32)


def in_layout(block: Floats, importance: Floats | None, size: int, grid: Grid, find: Finder) -> tuple[Floats, Floats]:
    """Run `find` on (rows, groups * size) in the memory layout that suits the group size."""
    rows, groups = block.shape[0], block.shape[1] // size
    grouped = np.ascontiguousarray(block, np.float32).reshape(rows * groups, size)
    spread = None
    if importance is not None:
        spread = np.broadcast_to(importance.reshape(1, groups, size), (rows, groups, size)).reshape(grouped.shape)
    axis = 1
    if size < TRANSPOSE_BELOW:
        axis, grouped = 0, np.ascontiguousarray(grouped.T)
        spread = None if spread is None else np.ascontiguousarray(spread.T)
    scale, zero = find(grouped, spread, grid, axis)
    return scale.reshape(rows, groups), zero.reshape(rows, groups)


def row_blocks(rows: int, columns: int, block: int | None = None) -> Iterator[slice]:
    """Slices of rows with about `block` weights each, `BLOCK` unless given."""
    step = max(1, (BLOCK if block is None else block) // max(1, columns))
    return (slice(a, min(a + step, rows)) for a in range(0, rows, step))


def in_threads(work: Callable[[slice], None], parts: Iterable[slice]) -> None:
    """numpy lets go of the interpreter in its loops; blocks are independent, so the result is the same."""
    threads = thread_count()
    if threads <= 1:
        for part in parts:
            work(part)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, parts):
            pass


def thread_count() -> int:
    """OMP_NUM_THREADS where it is set, else the cores this process may use."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted):
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def stored(scale: Floats, grid: Grid) -> Floats:
    """float32 values that the scale dtype holds exactly, never zero and never infinite."""
    magnitude = np.clip(np.abs(scale), SMALLEST[grid.scale_dtype], LARGEST[grid.scale_dtype])
    rounded: Floats = np.copysign(magnitude, scale).astype(SCALE_DTYPE[grid.scale_dtype]).astype(np.float32)
    return rounded


def stored_minimum(minimum: Floats, grid: Grid) -> Floats:
    """float32 values that the scale dtype holds exactly, zero among them."""
    largest = np.float32(LARGEST[grid.scale_dtype])
    rounded: Floats = np.clip(minimum, -largest, largest).astype(SCALE_DTYPE[grid.scale_dtype]).astype(np.float32)
    return rounded
