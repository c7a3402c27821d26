"""What llama.cpp stores a tensor as, and the bytes that takes."""

from __future__ import annotations

from edgeq.model.ggml import GGML_TYPES

# type -> (weights in a block, bytes of a block)
BLOCKS = {t.name: (t.elements, t.block_bytes) for t in GGML_TYPES.values()}

# What llama.cpp stores instead where the columns don't fill blocks of 256 (`tensor_type_fallback` in llama-quant.cpp).
# Older versions gave IQ4_NL for Q2_K and Q3_K: the same bytes.
FALLBACK = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "IQ4_XS": "IQ4_NL", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}

# Types of plain integers by their bits, fewest first: those around zero, and those with a minimum.
SYMMETRIC = {4: "Q4_0", 5: "Q5_0", 8: "Q8_0"}
MINIMUM = {4: "Q4_1", 5: "Q5_1"}


def integer_type(bits: int, *, symmetric: bool) -> str | None:
    """The smallest type that holds integers of `bits` bits, and zero points as minima; None: there is none."""
    types = SYMMETRIC if symmetric else MINIMUM
    return next((name for most, name in types.items() if bits <= most), None)


def fits(ggml_type: str, columns: int) -> bool:
    return columns % BLOCKS[ggml_type][0] == 0


def stored_type(ggml_type: str, columns: int) -> str:
    """`ggml_type`, or what llama.cpp falls back to for rows of `columns` weights."""
    if fits(ggml_type, columns):
        return ggml_type
    other = FALLBACK.get(ggml_type, "F16")
    return other if fits(other, columns) else "F16"


def type_bytes(ggml_type: str, numel: int) -> int:
    """Bytes of `numel` weights in whole blocks."""
    size, n_bytes = BLOCKS[ggml_type]
    return -(-numel // size) * n_bytes
