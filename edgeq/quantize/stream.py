"""One tensor at a time, and a large one in parts of its rows, from the source to the arrays of a shard.

Rows are independent of each other in every grid search and in every solver, so a part gives the rows that the whole
would have given. Only packed codes are ever held for all of a tensor. Runs on numpy alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.checkpoint.store import entries
from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.checkpoint.weights import Weights, dense
from edgeq.errors import EdgeqError
from edgeq.estimate.needs import PART
from edgeq.quantize.journal import Journal
from edgeq.quantize.layout import Item, Plan
from edgeq.registry import Progress

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Quantize = Callable[[Floats], QuantizedTensor]
ERROR_CHUNK = 1 << 20  # weights compared at once
LARGEST_HALF = 65504.0


def store(source: Weights, item: Item, quantize: Quantize) -> tuple[dict[str, Array], float | None]:
    """A shard's entries for one tensor, and its relative error when it was quantized.

    Raises:
        EdgeqError: a shape is wrong, or a value is not finite.
    """
    name, grid = item.tensor.name, item.grid
    found: dict[str, Array] = {}
    off = size = 0.0
    try:
        for rows, weight in row_parts(source, item):
            if grid.kind == "float":
                part = float_entries(item, weight)
            else:
                matrix = weight.reshape(-1, weight.shape[-1])
                quantized = quantize(matrix)
                part = entries(name, quantized)
                here = _squares(matrix, quantized)
                off, size = off + here[0], size + here[1]
            _fill(found, part, rows, item.tensor.shape[0])
    except EdgeqError as problem:
        raise EdgeqError(problem.what, where=problem.where or name, hint=problem.hint) from problem
    return found, None if grid.kind == "float" else _ratio(off, size)


def float_entries(item: Item, values: Floats) -> dict[str, Array]:
    """A shard's entry for a tensor that is stored as it is, or for some of its rows.

    Raises:
        EdgeqError: a value is not finite, or too large for half precision.
    """
    half = item.grid.bits == 16
    if not np.isfinite(values).all() or (half and np.abs(values).max(initial=0) > LARGEST_HALF):
        raise EdgeqError("a value is not finite, or too large for half precision", where=item.tensor.name)
    return entries(item.tensor.name, values, half=half)


def relative_error(weight: Floats, quantized: QuantizedTensor) -> float:
    """||W - Q|| / ||W|| (Frobenius), in double precision; 0 where W is all zero."""
    return _ratio(*_squares(weight, quantized))


def stream_shards(
    source: Weights, plan: Plan, quantize: Callable[[Floats, Item], QuantizedTensor], log: Journal, report: Progress
) -> None:
    """Write every shard that the journal lacks, tensor after tensor."""
    from edgeq.checkpoint.shard import write_shard

    total, done = sum(i.tensor.numel for items in plan.values() for i in items), 0
    for shard, items in plan.items():
        if shard in log.done:
            done += sum(i.tensor.numel for i in items)
            continue
        started = time.perf_counter()
        found: dict[str, Array] = {}
        errors: dict[str, float] = {}
        for item in items:
            report(done, total, item.tensor.name)
            stored, error = store(source, item, lambda matrix, item=item: quantize(matrix, item))  # type: ignore[misc]
            found |= stored
            if error is not None:
                errors[item.tensor.name] = error
            done += item.tensor.numel
        written = write_shard(log.folder / shard, found)
        log.add(shard, *written, errors, step_seconds=time.perf_counter() - started)
    report(total, total, "done")


def row_parts(source: Weights, item: Item) -> Iterator[tuple[slice, Floats]]:
    """Rows of the tensor's first dimension and their values; one part where the tensor is small."""
    name, shape = item.tensor.name, item.tensor.shape
    per_row = math.prod(shape[1:])
    step = max(1, PART // max(1, per_row))
    load_rows = getattr(source, "load_rows", None)
    if load_rows is None or step >= shape[0]:
        whole = dense(source.load(name))
        if whole.shape != shape:
            raise EdgeqError(f"the source gives shape {whole.shape}, the model needs {shape}")
        if len(shape) == 1:
            yield slice(0, shape[0]), whole
            return
        load_rows = lambda _, rows: whole[rows]  # noqa: E731
    for a in range(0, shape[0], step):
        rows = slice(a, min(a + step, shape[0]))
        values = load_rows(name, rows)
        if values.shape != (rows.stop - rows.start, *shape[1:]):
            raise EdgeqError(f"the source gives shape {values.shape} for {rows.stop - rows.start} rows of {shape}")
        yield rows, values


def _fill(found: dict[str, Array], part: dict[str, Array], rows: slice, of: int) -> None:
    """Put the entries of some rows into those of all; stacked matrices have several stored rows to a row."""
    count = rows.stop - rows.start
    for name, array in part.items():
        if count == of:
            found[name] = array
            continue
        each = array.shape[0] // count
        if name not in found:
            found[name] = np.empty((of * each, *array.shape[1:]), array.dtype)
        found[name][rows.start * each : rows.stop * each] = array


def _squares(weight: Floats, quantized: QuantizedTensor) -> tuple[float, float]:
    """Sums of squares of the error and of the weight."""
    rows, columns = weight.shape
    off = size = 0.0
    step = max(1, ERROR_CHUNK // max(1, columns))
    for a in range(0, rows, step):
        part = slice(a, a + step)
        here = QuantizedTensor.of(quantized.grid, quantized.codes[part], quantized.parameters.rows(part)).dequantize()
        off += float(np.square(here - weight[part]).sum(dtype=np.float64))
        size += float(np.square(weight[part]).sum(dtype=np.float64))
    return off, size


def _ratio(off: float, size: float) -> float:
    return math.sqrt(off / size) if size else 0.0
