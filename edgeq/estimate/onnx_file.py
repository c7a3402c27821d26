"""The size of an exported ONNX model's data file before it exists, to the byte for models that are exported.

The exporter writes the constants one after the other, as the graph meets them: large ones begin on a page, others on a
cache line, those below 1,024 bytes stay in the graph. Query, key and value are one matrix, gate and up another; the
embedding's zero points are there twice, packed for the head and unpacked for the look-up.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

from edgeq.model.names import loadable
from edgeq.model.spec import MLP, Attention, ModelSpec, MoE, Rope
from edgeq.scheme import Grid, Scheme

INLINE, PAGE, LINE = 1024, 4096, 64


def block_size(grid: Grid) -> int:
    """Block of `MatMulNBits` (16 to 256, a power of two; two-bit codes run fast up to 128 only)."""
    if grid.group_size == -1:
        return 128
    return math.gcd(grid.group_size, 128 if grid.bits == 2 else 256)


class _Streamed(int):
    """Bytes of a part of a quantized matrix, which is in the data file however small."""


def expert_block(spec: ModelSpec, ffn: MoE, grid: Grid) -> int | None:
    """Block of `QMoE`: it divides the group and both of an expert's widths; None: none does."""
    block = math.gcd(spec.hidden_size, ffn.intermediate, 128, *((grid.group_size,) if grid.group_size != -1 else ()))
    return block if block >= 16 else None


@lru_cache(maxsize=512)
def onnx_data_bytes(spec: ModelSpec, scheme: Scheme) -> int | None:
    """Bytes of `model.onnx.data` with the rotary tables of the model's full context; None for what isn't exported."""
    if not loadable(spec) or scheme.linear.kind != "int" or scheme.embed.kind != "int":
        return None
    if any(expert_block(spec, x.ffn, scheme.linear) is None for x in spec.layers if isinstance(x.ffn, MoE)):
        return None
    end = 0
    for size in _constants(spec, scheme):
        if size >= INLINE or isinstance(size, _Streamed):
            end += -end % (PAGE if size >= PAGE else LINE) + size
    return end


def _constants(spec: ModelSpec, scheme: Scheme) -> Iterator[int]:
    hidden, vocabulary = spec.hidden_size, spec.vocab_size
    yield from _matrix(vocabulary, hidden, scheme.embed)
    if not scheme.embed.symmetric:
        yield vocabulary * -(-hidden // block_size(scheme.embed))  # unpacked, for the look-up
    ropes: set[Rope] = set()
    for layer in spec.layers:
        mixer, ffn = layer.mixer, layer.ffn
        if isinstance(mixer, Attention):
            yield from _attention(spec, scheme, mixer, ropes)
        if isinstance(ffn, MLP):
            yield from _feed_forward(spec, scheme, ffn)
        elif isinstance(ffn, MoE):
            yield from _mixture(spec, scheme, ffn)
    yield 4 * hidden
    if not spec.tied:
        yield from _matrix(vocabulary, hidden, scheme.head or scheme.embed)


def _matrix(rows: int, columns: int, grid: Grid, block: int | None = None) -> Iterator[int]:
    """Codes, float32 scales and packed zero points; a float matrix whole."""
    if grid.kind == "float":
        yield 4 * rows * columns
        return
    block = block or block_size(grid)
    blocks = -(-columns // block)
    yield _Streamed(rows * blocks * block * grid.bits // 8)
    yield _Streamed(4 * rows * blocks)
    if not grid.symmetric:
        yield _Streamed(rows * -(-blocks * grid.bits // 8))


def _attention(spec: ModelSpec, scheme: Scheme, a: Attention, ropes: set[Rope]) -> Iterator[int]:
    q, kv = a.heads * a.head_dim, a.kv_heads * a.head_dim
    if spec.norm_layout != "post":
        yield 4 * spec.hidden_size
    yield from _matrix(q + 2 * kv, spec.hidden_size, scheme.linear)
    if a.qkv_bias:
        yield 4 * (q + 2 * kv)
    if a.qk_norm != "none":
        yield 4 * (a.head_dim if a.qk_norm == "head" else q)
        yield 4 * (a.head_dim if a.qk_norm == "head" else kv)
    if a.rope is not None and a.rope not in ropes:
        ropes.add(a.rope)
        yield from (4 * spec.max_positions * (a.rope.dim // 2),) * 2
    if a.sinks:
        yield 4 * a.heads
    yield from _matrix(spec.hidden_size, q, scheme.linear)
    if a.o_bias:
        yield 4 * spec.hidden_size
    if spec.norm_layout != "pre":
        yield 4 * spec.hidden_size


def _feed_forward(spec: ModelSpec, scheme: Scheme, f: MLP) -> Iterator[int]:
    if spec.norm_layout != "post":
        yield 4 * spec.hidden_size
    wide = f.intermediate * (2 if f.gated else 1)
    yield from _matrix(wide, spec.hidden_size, scheme.linear)
    if f.bias:
        yield 4 * wide
    yield from _matrix(spec.hidden_size, f.intermediate, scheme.linear)
    if f.bias:
        yield 4 * spec.hidden_size
    if spec.norm_layout != "pre":
        yield 4 * spec.hidden_size


def _mixture(spec: ModelSpec, scheme: Scheme, f: MoE) -> Iterator[int]:
    hidden, block = spec.hidden_size, expert_block(spec, f, scheme.linear)
    if spec.norm_layout != "post":
        yield 4 * hidden
    yield 4 * f.experts * hidden
    if f.router_bias:
        yield 4 * f.experts
    yield from _matrix(2 * f.experts * f.intermediate, hidden, scheme.linear, block)
    yield from _matrix(f.experts * hidden, f.intermediate, scheme.linear, block)
    if f.expert_bias:
        yield from (4 * f.experts * 2 * f.intermediate, 4 * f.experts * hidden)
    if f.shared_intermediate:
        yield from _matrix(2 * f.shared_intermediate, hidden, scheme.linear)
        yield from _matrix(hidden, f.shared_intermediate, scheme.linear)
    if f.shared_gate:
        yield 4 * hidden
    if spec.norm_layout != "pre":
        yield 4 * hidden
