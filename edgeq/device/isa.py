"""The instruction-set extensions that matter for matrix products, under one name on every system."""

from __future__ import annotations

# Ordered from plain to wide; the names are those of Linux's x86 flags where there are any.
X86 = (
    "ssse3", "avx", "f16c", "fma", "avx2", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "avx_vnni", "avx_vnni_int8", "amx_tile", "amx_int8", "amx_bf16",
)  # fmt: skip
ARM = ("neon", "fp16", "dotprod", "i8mm", "bf16", "sve", "sve2", "sme", "sme2")

# How archspec, the Linux kernel and Darwin's sysctl spell the same thing.
SPELLINGS = {
    "avx512vnni": "avx512_vnni", "avxvnni": "avx_vnni", "avx1.0": "avx",
    "avxvnniint8": "avx_vnni_int8", "amxint8": "amx_int8",
    "asimd": "neon", "advsimd": "neon", "asimddp": "dotprod", "asimdhp": "fp16",
    "feat_dotprod": "dotprod", "feat_i8mm": "i8mm", "feat_bf16": "bf16", "feat_fp16": "fp16",
    "feat_sme": "sme", "feat_sme2": "sme2",
}  # fmt: skip


def known_isa(flags: set[str] | frozenset[str]) -> tuple[str, ...]:
    """The extensions of interest among a processor's flags, in the order of the tables above."""
    named = {SPELLINGS.get(flag.lower(), flag.lower()) for flag in flags}
    return tuple(name for name in (*X86, *ARM) if name in named)


def int8_sums_overflow(arch: str, isa: tuple[str, ...]) -> bool:
    """Whether kernels add pairs of uint8 * int8 products in 16 bits, which is not always enough: on x86-64 without VNNI
    (`vpmaddubsw`, Intel's instruction set reference)."""
    return arch == "x86_64" and not {"avx512_vnni", "avx_vnni"} & set(isa)
