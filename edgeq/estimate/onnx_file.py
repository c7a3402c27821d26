"""The size of an exported ONNX model's data file before it exists, to the byte for dense models.

The exporter writes the constants one after the other, as the graph meets them: large ones begin on a page, others on a
cache line, those below 1,024 bytes stay in the graph. Query, key and value are one matrix, gate and up another; the
embedding's zero points are there twice, packed for the head and unpacked for the look-up.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

from edgeq.model.spec import MLP, Attention, ModelSpec, Rope
from edgeq.scheme import Grid, Scheme

INLINE, PAGE, LINE = 1024, 4096, 64


def block_size(grid: Grid) -> int:
    """Block of `MatMulNBits` (16 to 256, a power of two; two-bit codes run fast up to 128 only)."""
    if grid.group_size == -1:
        return 128
    return math.gcd(grid.group_size, 128 if grid.bits == 2 else 256)


def whole_rows(scheme: Scheme) -> bool:
    """Linear layers are multiplied in integers, inputs and all: 8-bit codes with one scale a row, no blocks."""
    return scheme.act_bits == 8 and scheme.linear.bits == 8 and scheme.linear.group_size == -1


@lru_cache(maxsize=512)
def onnx_data_bytes(spec: ModelSpec, scheme: Scheme) -> int | None:
    """Bytes of `model.onnx.data` with the rotary tables of the model's full context; None for what isn't exported."""
    if not spec.dense or scheme.linear.kind != "int" or scheme.embed.kind not in ("int", "float"):
        return None
    end = 0
    for size in _constants(spec, scheme):
        if size >= INLINE:
            end += -end % (PAGE if size >= PAGE else LINE) + size
    return end


def _constants(spec: ModelSpec, scheme: Scheme) -> Iterator[int]:
    hidden, vocabulary = spec.hidden_size, spec.vocab_size
    yield from _matrix(vocabulary, hidden, scheme.embed)
    if scheme.embed.kind == "int" and not scheme.embed.symmetric:
        yield vocabulary * -(-hidden // block_size(scheme.embed))  # unpacked, for the look-up
    ropes: set[Rope] = set()
    for layer in spec.layers:
        mixer, ffn = layer.mixer, layer.ffn
        if isinstance(mixer, Attention) and isinstance(ffn, MLP):
            yield from _attention(spec, scheme, mixer, ropes)
            yield from _feed_forward(spec, scheme, ffn)
    yield 4 * hidden
    if not spec.tied:
        yield from _matrix(vocabulary, hidden, scheme.head or scheme.embed)


def _matrix(rows: int, columns: int, grid: Grid) -> Iterator[int]:
    """Codes, float32 scales and packed zero points; a float matrix whole."""
    if grid.kind == "float":
        yield 4 * rows * columns
        return
    block = block_size(grid)
    blocks = -(-columns // block)
    yield rows * blocks * block * grid.bits // 8
    yield 4 * rows * blocks
    if not grid.symmetric:
        yield rows * -(-blocks * grid.bits // 8)


def _linear(rows: int, columns: int, scheme: Scheme) -> Iterator[int]:
    """Of a layer inside a block: int8 codes, a float32 scale and, where it is asymmetric, a zero point a row."""
    if not whole_rows(scheme):
        yield from _matrix(rows, columns, scheme.linear)
        return
    yield rows * columns
    yield 4 * rows
    if not scheme.linear.symmetric:
        yield rows


def _attention(spec: ModelSpec, scheme: Scheme, a: Attention, ropes: set[Rope]) -> Iterator[int]:
    q, kv = a.heads * a.head_dim, a.kv_heads * a.head_dim
    if spec.norm_layout != "post":
        yield 4 * spec.hidden_size
    yield from _linear(q + 2 * kv, spec.hidden_size, scheme)
    if a.qkv_bias:
        yield 4 * (q + 2 * kv)
    if a.qk_norm != "none":
        yield 4 * (a.head_dim if a.qk_norm == "head" else q)
        yield 4 * (a.head_dim if a.qk_norm == "head" else kv)
    if a.rope is not None and a.rope not in ropes:
        ropes.add(a.rope)
        yield from (4 * spec.max_positions * (a.rope.dim // 2),) * 2
    yield from _linear(spec.hidden_size, q, scheme)
    if a.o_bias:
        yield 4 * spec.hidden_size
    if spec.norm_layout != "pre":
        yield 4 * spec.hidden_size


def _feed_forward(spec: ModelSpec, scheme: Scheme, f: MLP) -> Iterator[int]:
    if spec.norm_layout != "post":
        yield 4 * spec.hidden_size
    wide = f.intermediate * (2 if f.gated else 1)
    for rows, columns in ((wide, spec.hidden_size), (spec.hidden_size, f.intermediate)):
        yield from _linear(rows, columns, scheme)
        if f.bias:
            yield 4 * rows
    if spec.norm_layout != "pre":
        yield 4 * spec.hidden_size
