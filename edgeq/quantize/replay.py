"""Hidden states made again from what is committed: shards give the quantized stream, the source the float stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgeq.checkpoint.store import NUMPY, assembled, parameter_dtypes
from edgeq.checkpoint.weights import Weights
from edgeq.model.safetensors_file import SafetensorsFile
from edgeq.model.spec import ModelSpec
from edgeq.quantize.block import aligned, load_block
from edgeq.quantize.experts import split
from edgeq.quantize.hidden import HiddenStates, batch_slices, float_name, hidden_name, write_hidden
from edgeq.quantize.layout import Item, Plan, shard_name
from edgeq.quantize.run_block import BlockRunner
from edgeq.quantize.stream import row_parts

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int64]
Tensor = torch.Tensor


def stored_embedding(spec: ModelSpec, item: Item, arrays: Mapping[str, Array], tokens: Tokens) -> Iterator[Tensor]:
    """Batches of the quantized embedding of tokens: (sequences, length, hidden), from a shard's entries."""
    for part in batch_slices(*tokens.shape):
        ids = tokens[part]
        rows = stored_values(item, {n: a[ids.reshape(-1)] for n, a in arrays.items()})
        yield _scaled(spec, aligned(rows.reshape(*ids.shape, -1)))


def float_embedding(spec: ModelSpec, source: Weights, item: Item, tokens: Tokens) -> Iterator[Tensor]:
    """The same of the unquantized embedding, of which only the tokens' rows are held."""
    ids, where = np.unique(tokens, return_inverse=True)
    table = np.empty((len(ids), spec.hidden_size), np.float32)
    for rows, values in row_parts(source, item):
        here = slice(*np.searchsorted(ids, (rows.start, rows.stop)))
        table[here] = values[ids[here] - rows.start]
    where = where.reshape(tokens.shape)
    for part in batch_slices(*tokens.shape):
        yield _scaled(spec, aligned(table[where[part]]))


def stored_values(item: Item, arrays: Mapping[str, Array]) -> Floats:
    """float32 values of a tensor, or of some of its rows, from its entries in a shard."""
    name, grid, columns = item.tensor.name, item.grid, item.tensor.shape[-1]
    if grid.kind == "float":
        values: Floats = arrays[name].astype(np.float32)
        return values
    return assembled(name, grid, columns, arrays).dequantize()


def shard_arrays(path: Path, items: list[Item]) -> dict[str, Array]:
    """The entries of tensors in a shard, mapped."""
    shard, found = SafetensorsFile.open(path), {}
    for item in items:
        name, grid = item.tensor.name, item.grid
        dtypes = (
            {f"{name}.{part}": d for part, d in parameter_dtypes(grid).items() if d} if grid.kind != "float" else {}
        )
        wanted = {name: f"F{grid.bits}"} if grid.kind == "float" else {f"{name}.codes": "U8", **dtypes}
        for entry, dtype in wanted.items():
            found[entry] = shard.raw(entry).view(NUMPY[dtype]).reshape(shard.tensors[entry].shape)
    return found


@torch.no_grad()
def replay(source: Weights, plan: Plan, tokens: Tokens, folder: Path, upto: int, *, float_stream: bool) -> None:
    """Make the input of block `upto` again, from the shards of all before it (and from the source)."""
    spec = source.spec
    embed = shard_name(None, "embed")
    item = plan[embed][0]
    shape = (*tokens.shape, spec.hidden_size)
    arrays = shard_arrays(folder / embed, plan[embed])
    write_hidden(folder / hidden_name(0), shape, stored_embedding(spec, item, arrays, tokens))
    if float_stream:
        write_hidden(folder / float_name(0), shape, float_embedding(spec, source, item, tokens))
    for i in range(upto):
        items = plan[shard_name(i)]
        arrays = shard_arrays(folder / shard_name(i), items)
        values = (named for t in items for named in split(t.tensor, stored_values(t, arrays)))
        stored = {name: aligned(value) for name, value in values}
        _step(spec, i, stored, folder, hidden_name)
        if float_stream:
            block = load_block(source, i, [t.tensor for t in items], {}, copy=False)
            _step(spec, i, block.original, folder, float_name)


def _step(spec: ModelSpec, i: int, tensors: Mapping[str, Tensor], folder: Path, name: Any) -> None:
    states, runner = HiddenStates(folder / name(i)), BlockRunner(spec, i)
    write_hidden(folder / name(i + 1), states.shape, (runner(tensors, x) for x in states.batches()))
    (folder / name(i)).unlink()


def _scaled(spec: ModelSpec, x: Tensor) -> Tensor:
    return x if spec.embed_scale == 1.0 else x * spec.embed_scale
