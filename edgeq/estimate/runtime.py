"""Memory that onnxruntime on a CPU takes beside the stored weights, the KV cache and the activations.

What was measured (onnxruntime 1.31, Linux, x86-64, resident memory of a process that does `edgeq.load` and generates):

- The artifact's data file is memory-mapped. `MatMulNBits` copies each matrix into a layout of its own when it loads
  ("prepacking") and the mapped pages of its codes are released. The copy takes bits/8 + 8/group bytes a weight: codes,
  a scale and a block sum in float32. The mapped scales stay.
- The embedding's table is looked up in the mapped file, so its pages stay, beside the packed copy of a tied head, and
  its scales are copied once more where they are reshaped.
- Where inputs have 8 bits too, the int8 codes of a matrix are packed likewise, with a sum a row.
- Float matrices are packed likewise, at 4 bytes a weight, and released.
- Interpreter, numpy, onnxruntime and the tokenizer's library are constant, the tokenizer grows with its vocabulary
  (30 MiB for 49,152 entries, 105 for 147,456).
- Cache buffers double as the sequence grows, and what the smaller ones leave behind is not all used again.
"""

from __future__ import annotations

from edgeq.estimate.formats import grid_bytes, weight_bytes
from edgeq.estimate.kv import kv_cache_bytes
from edgeq.estimate.onnx_file import block_size, whole_rows
from edgeq.estimate.onnx_grids import kernel_grid, on_kernels
from edgeq.model.spec import ModelSpec
from edgeq.model.tensors import TensorSpec, tensors
from edgeq.scheme import Grid, Scheme

MIB = 1 << 20
_LIBRARIES = 62 * MIB  # interpreter 11, edgeq and numpy 12, onnxruntime 25, tokenizers and jinja2 14
_TOKENIZER_ENTRY = 700  # bytes a vocabulary entry: strings, hash tables both ways, merges
_NODE_BYTES = 24_000  # session and graph objects, buffers of each node
_LAYER_NODES = 10
_GROWTH = 0.4  # of the cache: 0.37 to 0.6 measured


def runtime_overhead(spec: ModelSpec, scheme: Scheme, target: str, context: int, kv_dtype: str = "f32") -> int | None:
    """Bytes beside `weight_bytes`, the cache and the activations at the peak of loading and generating.

    The process's peak is what the footprint adds up to: weights + KV cache + activations + this.

    Returns:
        None for a target or a scheme whose runtime was not measured.
    """
    if target != "onnxruntime/cpu" or scheme.gguf_type is not None:
        return None
    grids = (scheme.linear, scheme.embed, scheme.head or scheme.embed)
    if any(g.kind != "float" and kernel_grid(g) is None for g in grids):
        return None
    fixed = _LIBRARIES + spec.vocab_size * _TOKENIZER_ENTRY + spec.n_layers * _LAYER_NODES * _NODE_BYTES
    growth = int(_GROWTH * kv_cache_bytes(spec, context, kv_dtype=kv_dtype, target=target))
    return fixed + growth + resident_weight_bytes(spec, scheme) - weight_bytes(spec, scheme, target)


def resident_weight_bytes(spec: ModelSpec, scheme: Scheme) -> int:
    """Bytes of memory that weights take once onnxruntime has loaded them, mapped pages in use included."""
    total, scheme = 0, on_kernels(scheme)
    for t in tensors(spec):
        columns = t.shape[-1]
        rows = t.numel // columns
        if t.role == "embed":
            total += grid_bytes(rows, columns, scheme.embed, "onnxruntime") + _kept_scales(rows, columns, scheme.embed)
            if spec.tied:
                total += _packed(rows, columns, scheme.embed)
        elif t.linear:
            grid = _grid(t, scheme)
            if t.role != "head" and whole_rows(scheme):
                total += rows * (columns + 4 + 4)  # packed codes and their sums; scales
                continue
            total += _packed(rows, columns, grid) + _kept_scales(rows, columns, grid)
        else:
            total += 4 * t.numel
    return total


def _grid(t: TensorSpec, scheme: Scheme) -> Grid:
    return scheme.head or scheme.embed if t.role == "head" else scheme.linear


def _blocks(columns: int, grid: Grid) -> int:
    return -(-columns // block_size(grid))


def _packed(rows: int, columns: int, grid: Grid) -> int:
    """Bytes of the kernel's own copy."""
    if grid.kind == "float":
        return 4 * rows * columns
    blocks = rows * _blocks(columns, grid)
    return blocks * (block_size(grid) * grid.bits // 8 + 8)


def _kept_scales(rows: int, columns: int, grid: Grid) -> int:
    return 0 if grid.kind == "float" else 4 * rows * _blocks(columns, grid)
