"""llama.cpp's block types: how many bytes a block of weights takes.

Source: the block structures of ggml (`ggml-common.h`): e.g. Q4_0 is one f16 scale and 32 nibbles, 18 bytes.
"""

from __future__ import annotations

# type -> (weights in a block, bytes of a block)
BLOCKS: dict[str, tuple[int, int]] = {
    "F32": (1, 4),
    "F16": (1, 2),
    "BF16": (1, 2),
    "Q4_0": (32, 18),
    "Q4_1": (32, 20),
    "Q5_0": (32, 22),
    "Q5_1": (32, 24),
    "Q8_0": (32, 34),
    "Q2_K": (256, 84),
    "Q3_K": (256, 110),
    "Q4_K": (256, 144),
    "Q5_K": (256, 176),
    "Q6_K": (256, 210),
    "IQ4_NL": (32, 18),
    "IQ4_XS": (256, 136),
}

# What llama.cpp stores instead where the columns don't fill blocks of 256 (`tensor_type_fallback` in llama-quant.cpp).
# Older versions gave IQ4_NL for Q2_K and Q3_K: the same bytes.
FALLBACK = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "IQ4_XS": "IQ4_NL", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}


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
