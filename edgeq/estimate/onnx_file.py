"""The size of an exported ONNX model's data file before it exists, to the byte for dense models.

The exporter writes the constants one after the other, as the graph meets them: large ones begin on a page, others on a
cache line; those below 1,024 bytes stay in the graph unless they are a quantized matrix's. Query, key and value are one
matrix, gate and up another. In the contrib dialect the embedding's zero points are there twice, packed for the head and
unpacked for the look-up. What functions unpack is stored as `exporters/onnx/planes.py` has it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from edgeq.estimate.onnx_grids import Pack, kernel_grid
from edgeq.estimate.onnx_grids import block_size as kernel_block
from edgeq.model.names import loadable
from edgeq.model.spec import MLP, Attention, ModelSpec, MoE, Rope
from edgeq.scheme import GGML_GRIDS, Grid, Scheme

INLINE, PAGE, LINE = 1024, 4096, 64
EXPERT_BITS = (2, 4, 8)  # of QMoE's codes


def block_size(grid: Grid) -> int:
    """Block of `MatMulNBits` (16 to 256, a power of two; two-bit codes run fast up to 128 only)."""
    if grid.group_size == -1:
        return 128
    return math.gcd(grid.group_size, 128 if grid.bits == 2 else 256)


def whole_rows(scheme: Scheme) -> bool:
    """Linear layers are multiplied in integers, inputs and all: 8-bit codes with one scale a row, no blocks."""
    return scheme.act_bits == 8 and scheme.linear.bits == 8 and scheme.linear.group_size == -1


@lru_cache(maxsize=512)
def onnx_data_bytes(
    spec: ModelSpec, scheme: Scheme, *, dialect: str = "contrib", pack: Pack = "fast", half: bool = False
) -> int | None:
    """Bytes of `model.onnx.data` with the rotary tables of the model's full context; None for what isn't exported,
    float weights, and llama.cpp's mixtures of block types.

    Args:
        half: floats are in float16.
    """
    known = _known(scheme.linear) and (_known(scheme.embed) or scheme.embed.kind == "float")
    if not loadable(spec) or scheme.gguf_type is not None or not known:
        return None
    end = 0
    for size in _File(spec, scheme, dialect, pack, 2 if half else 4).constants():
        end += -end % (PAGE if size >= PAGE else LINE) + size
    return end


def expert_block(spec: ModelSpec, ffn: MoE, grid: Grid) -> int | None:
    """Block of `QMoE`: it divides the group and both of an expert's widths; None: none does."""
    block = math.gcd(spec.hidden_size, ffn.intermediate, 128, *((grid.group_size,) if grid.group_size != -1 else ()))
    return block if block >= 16 else None


def one_node(spec: ModelSpec, ffn: MoE, grid: Grid) -> bool:
    """`QMoE` runs all experts of a layer; else each has products of its own."""
    if ffn.limit is None and ffn.activation != "silu":
        return False
    plain = grid.kind == "int" and grid.bits in EXPERT_BITS and grid.zero != "float" and grid.super_size is None
    return plain and expert_block(spec, ffn, grid) is not None


def _known(grid: Grid) -> bool:
    return grid.kind in ("int", "codebook") or (grid.kind == "gguf" and grid.ggml_type in GGML_GRIDS)


def matrix_bytes(rows: int, columns: int, grid: Grid, *, dialect: str = "contrib", pack: Pack = "fast") -> int:
    """Bytes of a matrix in the data file, without what lies between its parts."""
    return sum(_matrix(rows, columns, grid, dialect, pack))


def _matrix(rows: int, columns: int, grid: Grid, dialect: str, pack: Pack, wide: int = 4) -> Iterator[int]:
    """Codes, scales and packed zero points, after the offsets of a grid with minima; a float matrix whole.

    Args:
        wide: bytes of a float.
    """
    if grid.kind == "float":
        yield wide * rows * columns
        return
    kernel = kernel_grid(grid, pack)
    if kernel is None:
        yield from _unpacked(rows, columns, grid)
        return
    if grid.zero == "float":
        yield wide * rows * _groups(columns, grid.group_size)
    blocks = -(-columns // (kernel_block(kernel) or 1))
    zeros = 0 if kernel.symmetric else blocks
    if dialect == "standard":  # packed over the whole tensor
        yield _packed(rows * columns, kernel.bits)
        yield wide * rows * blocks
        yield _packed(rows * zeros, kernel.bits)
        return
    yield rows * blocks * _packed(kernel_block(kernel) or 1, kernel.bits)
    yield wide * rows * blocks
    yield rows * _packed(zeros, kernel.bits)


def _unpacked(rows: int, columns: int, grid: Grid) -> Iterator[int]:
    """The inputs of a function, in order: a code's pieces, scales, zero points or minima, super-scales."""
    unit = grid.group_size if grid.super_size in (None, -1) else grid.super_size
    step = math.lcm(8, unit) if unit and unit > 0 else 8
    channels = -(-columns // step) * step
    for width in (8, 4, 2, 1):
        if grid.bits & width:
            yield channels * width // 8 * rows
    groups = rows * _groups(channels, grid.group_size)
    of_scale = 2 if grid.scale_dtype == "f16" else 4
    supers = 0 if grid.super_size is None else rows * _groups(channels, grid.super_size)
    minima = grid.zero == "float"
    yield groups * (1 if supers else of_scale)
    yield groups * {"none": 0, "int": 1, "float": 1 if supers else of_scale}[grid.zero]
    yield supers * of_scale
    yield supers * of_scale * minima


def _packed(codes: int, bits: int) -> int:
    return -(-codes * bits // 8)


def _groups(columns: int, size: int) -> int:
    return 1 if size == -1 else -(-columns // size)


@dataclass
class _File:
    """Sizes of the constants of one export that are in its data file, in the order that they are written."""

    spec: ModelSpec
    scheme: Scheme
    dialect: str
    pack: Pack
    wide: int = 4  # bytes of a float
    ropes: set[Rope] = field(default_factory=set)
    numbered: set[int] = field(default_factory=set)

    def constants(self) -> Iterator[int]:
        spec, scheme = self.spec, self.scheme
        hidden, vocabulary = spec.hidden_size, spec.vocab_size
        yield from self.matrix(vocabulary, hidden, scheme.embed)
        yield from self.look_up(vocabulary, hidden, scheme.embed)
        for layer in spec.layers:
            if isinstance(layer.mixer, Attention):
                yield from self.attention(layer.mixer)
            if isinstance(layer.ffn, MLP):
                yield from self.feed_forward(layer.ffn)
            elif isinstance(layer.ffn, MoE):
                yield from self.mixture(layer.ffn)
        yield from self.vector(hidden)
        if not spec.tied:
            yield from self.matrix(vocabulary, hidden, scheme.head or scheme.embed)
        yield from self.vector(vocabulary * spec.head_bias)

    def matrix(self, rows: int, columns: int, grid: Grid) -> Iterator[int]:
        yield from (size for size in _matrix(rows, columns, grid, self.dialect, self.pack, self.wide) if size)
        kernel = kernel_grid(grid, self.pack)
        unsigned = self.dialect == "standard" and self.scheme.act_bits == 8  # bytes have no sign, but zero points
        if unsigned and kernel is not None and kernel.bits == 8 and kernel.symmetric:
            yield rows * -(-columns // (kernel_block(kernel) or 1))

    def linear(self, rows: int, columns: int) -> Iterator[int]:
        """Of a layer inside a block; where inputs are rounded too: int8 codes, a float32 scale and, where it is
        asymmetric, a zero point a row."""
        grid = self.scheme.linear
        if not whole_rows(self.scheme):
            yield from self.matrix(rows, columns, grid)
            return
        yield rows * columns
        yield from self.vector(rows)
        yield from self.constant(0 if grid.symmetric else rows)

    def look_up(self, rows: int, columns: int, grid: Grid) -> Iterator[int]:
        """What the embedding's rows need beside the matrix."""
        if grid.kind == "float":
            return
        kernel = kernel_grid(grid, self.pack)
        if kernel is not None and not kernel.symmetric and self.dialect == "contrib":
            yield from self.constant(rows * -(-columns // (kernel_block(kernel) or 1)))  # zero points, unpacked
        if kernel is not None and self.dialect == "standard":
            yield from self.constant(8 * columns)  # each channel's block
        if kernel is not None and grid.zero == "float":
            yield from self.constant(8 * columns)  # each channel's group

    def vector(self, length: int) -> Iterator[int]:
        yield from self.constant(self.wide * length)

    def constant(self, size: int) -> Iterator[int]:
        if size >= INLINE:
            yield size

    def attention(self, a: Attention) -> Iterator[int]:
        spec = self.spec
        q, kv = a.heads * a.head_dim, a.kv_heads * a.head_dim
        yield from self.vector(spec.hidden_size * (spec.norm_layout != "post"))
        yield from self.linear(q + 2 * kv, spec.hidden_size)
        yield from self.vector((q + 2 * kv) * a.qkv_bias)
        if a.qk_norm != "none":
            yield from self.vector(a.head_dim if a.qk_norm == "head" else q)
            yield from self.vector(a.head_dim if a.qk_norm == "head" else kv)
        if a.rope is not None and a.rope not in self.ropes:
            self.ropes.add(a.rope)
            for _ in ("cosines", "sines"):
                yield from self.vector(self.positions(a.rope) * (a.rope.dim // 2))
        yield from self.vector(a.heads * a.sinks)
        yield from self.linear(spec.hidden_size, q)
        yield from self.vector(spec.hidden_size * a.o_bias)
        yield from self.vector(spec.hidden_size * (spec.norm_layout != "pre"))

    def positions(self, rope: Rope) -> int:
        """Rows of the rotary tables: two sets of frequencies, chosen by length, are one below the other."""
        longest = self.spec.max_positions
        switch = rope.original_max_positions or longest
        return switch + longest if rope.kind == "longrope" and switch < longest else longest

    def feed_forward(self, f: MLP) -> Iterator[int]:
        spec = self.spec
        wide = f.intermediate * (2 if f.gated else 1)
        yield from self.vector(spec.hidden_size * (spec.norm_layout != "post"))
        yield from self.linear(wide, spec.hidden_size)
        yield from self.vector(wide * f.bias)
        yield from self.linear(spec.hidden_size, f.intermediate)
        yield from self.vector(spec.hidden_size * f.bias)
        yield from self.vector(spec.hidden_size * (spec.norm_layout != "pre"))

    def mixture(self, f: MoE) -> Iterator[int]:
        spec = self.spec
        hidden = spec.hidden_size
        yield from self.vector(hidden * (spec.norm_layout != "post"))
        yield from self.vector(f.experts * hidden)
        yield from self.vector(f.experts * f.router_bias)
        if self.dialect == "contrib" and self.scheme.act_bits == 16 and one_node(spec, f, self.scheme.linear):
            yield from self.experts(2 * f.experts * f.intermediate, hidden, f)
            yield from self.experts(f.experts * hidden, f.intermediate, f)
            yield from self.vector(f.experts * 2 * f.intermediate * f.expert_bias)
            yield from self.vector(f.experts * hidden * f.expert_bias)
        else:
            yield from self.split_experts(f)
        if f.shared_intermediate:
            yield from self.linear(2 * f.shared_intermediate, hidden)
            yield from self.linear(hidden, f.shared_intermediate)
        yield from self.vector(hidden * f.shared_gate)
        yield from self.vector(hidden * (spec.norm_layout != "pre"))

    def split_experts(self, f: MoE) -> Iterator[int]:
        """Every expert's matrices by themselves, all of one place before those of the next, and their numbers once."""
        if f.experts not in self.numbered:
            self.numbered.add(f.experts)
            yield from self.constant(8 * f.experts)
        for rows, columns in ((2 * f.intermediate, self.spec.hidden_size), (self.spec.hidden_size, f.intermediate)):
            for _ in range(f.experts):
                yield from self.linear(rows, columns)
                yield from self.vector(rows * f.expert_bias)

    def experts(self, rows: int, columns: int, f: MoE) -> Iterator[int]:
        """Codes, float32 scales and packed zero points of all experts' matrices, one below the other."""
        grid = self.scheme.linear
        blocks = columns // (expert_block(self.spec, f, grid) or 1)
        yield rows * columns * grid.bits // 8
        yield self.wide * rows * blocks
        if not grid.symmetric:
            yield rows * _packed(blocks, grid.bits)
