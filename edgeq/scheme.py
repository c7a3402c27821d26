"""Scheme: how weights, activations and KV cache are stored, and how the codes are found.

A `Grid` says which values a group of weights may take and what is stored beside the codes; a `Scheme` assigns a
grid to the linear layers and to the embedding and head, and names the method that chooses the codes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

GridKind = Literal["float", "int", "gguf"]
ZeroPoint = Literal["none", "int", "float"]


@dataclass(frozen=True, slots=True)
class Grid:
    """Which values a weight may take.

    Attributes:
        kind: `float` (stored as is, `bits` 16 or 32), `int` (uniform, `code - zero_point` times `scale`) or
            `gguf` (a llama.cpp block type, named by `ggml_type`).
        bits: bits of one code.
        group_size: consecutive input channels that share a scale; -1: the whole row.
        zero: `none` (symmetric: the zero point is 2**(bits-1)), `int` (stored with `bits` bits), `float`.
        scale_dtype: dtype that scales are rounded to *before* codes are chosen.
    """

    kind: GridKind = "int"
    bits: int = 4
    group_size: int = 32
    zero: ZeroPoint = "int"
    scale_dtype: Literal["f16", "f32"] = "f16"
    ggml_type: str | None = None

    @property
    def symmetric(self) -> bool:
        return self.zero == "none"

    @property
    def levels(self) -> int:
        return 1 << self.bits


F32 = Grid("float", 32, -1, "none", "f32")
F16 = Grid("float", 16, -1, "none", "f16")


def int_grid(bits: int, group_size: int, *, symmetric: bool = False) -> Grid:
    return Grid("int", bits, group_size, "none" if symmetric else "int", "f16")


@dataclass(frozen=True, slots=True)
class Scheme:
    """One way to store a model.

    Attributes:
        name: e.g. `rtn-int4-g32`, `gptq-int4-g128-sym`, `w8a8-smooth`, `gguf-q4_k_m`, `fp16`.
        method: `none`, `rtn`, `hqq`, `gptq`, `awq`, `autoround`, `smoothquant`, `llama.cpp`.
        linear: grid of the linear layers.
        embed: grid of the embedding (and of the head where tied or where `head` is None).
        act_bits: bits of quantized activations, 16 when they stay float.
        gguf_type: llama.cpp file type (`Q4_K_M`); then `linear` is its base type and the mix rules apply.
    """

    name: str
    method: str
    linear: Grid
    embed: Grid
    head: Grid | None = None
    act_bits: int = 16
    gguf_type: str | None = None

    def renamed(self, name: str) -> Scheme:
        return replace(self, name=name)
