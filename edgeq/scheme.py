"""Scheme: how weights, activations and KV cache are stored, and how the codes are found.

A `Grid` says which values a group of weights may take and what is stored beside the codes; a `Scheme` assigns a
grid to the linear layers and to the embedding and head, and names the method that chooses the codes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from edgeq.errors import EdgeqError

GridKind = Literal["float", "int", "codebook", "gguf"]
ZeroPoint = Literal["none", "int", "float"]


@dataclass(frozen=True, slots=True)
class Grid:
    """Which values a weight may take.

    Attributes:
        kind: `float` (stored as is, `bits` 16 or 32), `int` (uniform), `codebook` (values of a table) or `gguf`
            (a llama.cpp block type, named by `ggml_type`; uniform unless it has a codebook).
        bits: bits of one code.
        group_size: consecutive input channels that share a scale; -1: the whole row.
        zero: `none` (symmetric: the zero point is 2**(bits-1)), `int` (stored with `bits` bits), `float` (a minimum,
            stored like the scale and added after scaling).
        scale_dtype: dtype that scales are rounded to *before* codes are chosen.
        codebook: name of a table in `edgeq.checkpoint.codebooks`; a weight is `table[code] * scale`.
        super_size: where scales (and minima) are codes themselves: weights that share a super-scale, -1 for a row.
        scale_bits: bits of those codes.
    """

    kind: GridKind = "int"
    bits: int = 4
    group_size: int = 32
    zero: ZeroPoint = "int"
    scale_dtype: Literal["f16", "f32"] = "f16"
    ggml_type: str | None = None
    codebook: str | None = None
    super_size: int | None = None
    scale_bits: int = 0

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


def affine_grid(bits: int, group_size: int) -> Grid:
    """A scale and a float minimum a group (Q4_1's form)."""
    return Grid("int", bits, group_size, "float", "f16")


def codebook_grid(name: str, group_size: int, *, double: bool = False) -> Grid:
    """Values of a codebook; `double`: scales are 8-bit codes on one super-scale a row (double quantization)."""
    bits = {"ternary": 2}.get(name, 4)
    supers, scale_bits = (-1, 8) if double else (None, 0)
    return Grid("codebook", bits, group_size, "none", "f16", None, name, supers, scale_bits)


# Block types of ggml-common.h as grids: bits, group, zero, super-block, bits of a sub-scale, codebook.
_GGML: dict[str, tuple[int, int, ZeroPoint, int | None, int, str | None]] = {
    "Q4_0": (4, 32, "none", None, 0, None),
    "Q4_1": (4, 32, "float", None, 0, None),
    "Q5_0": (5, 32, "none", None, 0, None),
    "Q5_1": (5, 32, "float", None, 0, None),
    "Q8_0": (8, 32, "none", None, 0, None),
    "Q2_K": (2, 16, "float", 256, 4, None),
    "Q3_K": (3, 16, "none", 256, 6, None),
    "Q4_K": (4, 32, "float", 256, 6, None),
    "Q5_K": (5, 32, "float", 256, 6, None),
    "Q6_K": (6, 16, "none", 256, 8, None),
    "IQ4_NL": (4, 32, "none", None, 0, "iq4_nl"),
    "IQ4_XS": (4, 32, "none", 256, 6, "iq4_nl"),
}
GGML_GRIDS = {
    name: Grid("gguf", bits, group, zero, "f16", name, codebook, super_size, scale_bits)
    for name, (bits, group, zero, super_size, scale_bits, codebook) in _GGML.items()
}


@dataclass(frozen=True, slots=True)
class Scheme:
    """One way to store a model.

    Attributes:
        name: e.g. `rtn-int4-g32`, `gptq-int4-g128-sym`, `w8a8-smooth`, `gguf-q4_k_m`, `fp16`.
        method: `none`, `rtn`, `hqq`, `gptq`, `awq`, `autoround`, `smoothquant`, `llama.cpp`.
        linear: grid of the linear layers.
        embed: grid of the embedding (and of the head where tied or where `head` is None).
        act_bits: bits of quantized activations, 16 when they stay float.
        act_static: their scales are fixed in advance, one a tensor, instead of found for each token.
        gguf_type: llama.cpp file type (`Q4_K_M`); then `linear` is its base type and the mix rules apply.
    """

    name: str
    method: str
    linear: Grid
    embed: Grid
    head: Grid | None = None
    act_bits: int = 16
    gguf_type: str | None = None
    act_static: bool = False

    def renamed(self, name: str) -> Scheme:
        return replace(self, name=name)

    @property
    def bits(self) -> float:
        """Nominal bits of a linear weight's code (scales and mixtures left out)."""
        return self.linear.bits


# llama.cpp file types -> the block type most of their linear layers take.
GGUF_BASE = {
    "F16": "F16",
    "BF16": "BF16",
    "Q8_0": "Q8_0",
    "Q6_K": "Q6_K",
    "Q5_K_M": "Q5_K",
    "Q5_K_S": "Q5_K",
    "Q5_1": "Q5_1",
    "Q5_0": "Q5_0",
    "Q4_K_M": "Q4_K",
    "Q4_K_S": "Q4_K",
    "Q4_1": "Q4_1",
    "Q4_0": "Q4_0",
    "IQ4_NL": "IQ4_NL",
    "IQ4_XS": "IQ4_XS",
    "Q3_K_L": "Q3_K",
    "Q3_K_M": "Q3_K",
    "Q3_K_S": "Q3_K",
    "Q2_K": "Q2_K",
}
_INTEGER = re.compile(r"(?P<method>[a-z0-9]+(?:\+[a-z0-9]+)*)-int(?P<bits>[2-8])(?:-g(?P<group>\d+))?(?P<sym>-sym)?")
METHODS = ("rtn", "hqq", "gptq", "awq", "autoround", "qronos")


def named_scheme(name: str) -> Scheme:
    """The scheme a name stands for: `fp16`, `gptq-int4-g128-sym`, `awq+gptq-int4-g32`, `w8a8-smooth`, `gguf-q4_k_m`.

    An integer scheme without `-gN` has one scale a row. The embedding and the head have 8 bits in groups of 32,
    as llama.cpp's mixtures keep outputs at Q6_K or Q8_0: they carry more of the error than of the bytes.

    Raises:
        EdgeqError: no such scheme.
    """
    key = name.strip().lower()
    if key in {"fp32", "f32"}:
        return Scheme("fp32", "none", F32, F32)
    if key in {"fp16", "f16", "bf16"}:
        return Scheme("bf16" if key == "bf16" else "fp16", "none", F16, F16)
    if key.startswith("gguf-"):
        return gguf_scheme(key[5:])
    if key == "w8a8-smooth":
        return Scheme(key, "smoothquant", int_grid(8, -1, symmetric=True), int_grid(8, 32), act_bits=8)
    found = _INTEGER.fullmatch(key)
    if found is None or any(m not in METHODS for m in found["method"].split("+")):
        raise EdgeqError(
            f"unknown scheme {name!r}",
            hint="Try rtn-int4-g32, gptq-int4-g128-sym, w8a8-smooth, gguf-q4_k_m or fp16",
        )
    bits, group = int(found["bits"]), int(found["group"] or -1)
    if group == 0:
        raise EdgeqError(f"a group size of 0 in scheme {name!r}", hint="Use -g32, -g64, -g128, or leave it out")
    linear = int_grid(bits, group, symmetric=found["sym"] is not None)
    return Scheme(key, found["method"], linear, int_grid(8, 32))


def gguf_scheme(file_type: str) -> Scheme:
    """A llama.cpp file type, by any spelling of its case.

    Raises:
        EdgeqError: no such type.
    """
    kind = file_type.upper()
    if kind not in GGUF_BASE:
        raise EdgeqError(f"unknown GGUF type {file_type!r}", hint=f"Known: {', '.join(GGUF_BASE)}")
    base = GGUF_BASE[kind]
    grid = GGML_GRIDS.get(base) or Grid("gguf", 16, 1, "none", "f16", base)
    return Scheme(f"gguf-{kind.lower()}", "llama.cpp", grid, grid, gguf_type=kind)
