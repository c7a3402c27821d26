"""Expected quality loss: mean KL divergence from the original's next-token distribution, with its source.

Anchors are published figures for 8B-class Llama models on wikitext-2; schemes between anchors are interpolated and
say so. Figures of different models agree only within a factor of about two: good for ranking, no promise. Only
`edgeq verify` and `edgeq bench` on the artifact give the truth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

from edgeq.model.spec import ModelSpec
from edgeq.model.tensors import parameters
from edgeq.scheme import Scheme

Kind = Literal["lossless", "published", "interpolated"]

REFERENCE_PARAMETERS = 8.0e9
# Smaller models lose more. Exponent between 8B and 0.135B over eight llama.cpp types (edgeq's own measurement on
# SmolLM2-135M against llama.cpp's figures for Llama-3-8B: 0.05 to 0.28, least in the mixtures, most in Q4_0).
SIZE_EXPONENT = 0.2


@dataclass(frozen=True, slots=True)
class Quality:
    """Attributes:
    kld: expected mean KL divergence per token, nats.
    kind: `published` for this very scheme (then scaled to the model's size), or `interpolated`.
    """

    kld: float
    kind: Kind
    source: str

    @property
    def words(self) -> str:
        for limit, text in _WORDS:
            if self.kld < limit:
                return text
        return "unusable"


_WORDS = (
    (0.002, "none"),
    (0.01, "hardly any"),
    (0.03, "very small"),
    (0.08, "small"),
    (0.2, "noticeable"),
    (0.6, "large"),
)

_LLAMACPP = "llama.cpp's perplexity README, Llama-3-8B"
_GGUF = {
    "Q8_0": 0.0014,
    "Q6_K": 0.0055,
    "Q5_K_M": 0.0108,
    "Q4_K_M": 0.0313,
    "Q4_K_S": 0.0431,
    "Q4_0": 0.0719,
    "Q3_K_M": 0.102,
    "Q2_K": 0.445,
}
# (KLD at 8B, what it is interpolated from)
_GGUF_BETWEEN = {
    "Q5_K_S": (0.0125, "between Q5_K_M and Q4_K_M by bits"),
    "Q5_1": (0.0125, "as Q5_K_S: the same bits and a minimum"),
    "Q5_0": (0.0170, "Q5_K_S without a minimum"),
    "Q4_1": (0.0425, "0.97 of Q4_K_S, as on SmolLM2-135M"),
    "IQ4_NL": (0.0390, "IQ4_XS without super-blocks"),
    "IQ4_XS": (0.0400, "0.0363 with an importance matrix, 10 % more without"),
    "Q3_K_L": (0.090, "between Q3_K_M and Q4_K_S by bits"),
    "Q3_K_S": (0.150, "between Q3_K_M and Q2_K by bits"),
}
# 4-bit integers in groups of 128, symmetric or not, at 8B. AWQ's paper gives perplexities of Llama-2-7B: the mean
# increase of the log-likelihood, ln(PPL / PPL of fp16), stands in for KLD; times 2.2 to the Llama-3 scale (the same
# ratio that Q4_0 shows in both: ik_llama.cpp PR #295, llama.cpp README).
_AWQ = "AWQ paper (2306.00978), Llama-2-7B, brought to Llama-3's scale"
_INT4_G128 = {
    "rtn": (2.2 * math.log(5.73 / 5.47), "published", _AWQ),
    "awq": (2.2 * math.log(5.60 / 5.47), "published", _AWQ),
    "gptq": (0.39 * 2.2 * math.log(5.73 / 5.47), "interpolated", "0.39 of RTN, as in Brevitas' table (2505.11695)"),
    "qronos": (0.26 * 2.2 * math.log(5.73 / 5.47), "interpolated", "0.26 of RTN, as in Brevitas' table (2505.11695)"),
    "hqq": (2.2 * math.log(5.71 / 5.47), "interpolated", "between RTN and GPTQ of AWQ's paper; no figure of its own"),
    "autoround": (0.036, "interpolated", "a little below GPTQ, as its paper finds (2309.05516)"),
}
_COMBINED = 0.95  # two methods together gain a little more (NNCF: 5.3 % -> 4.1 % of error; not on every model)
_GROUP_32 = {"rtn": 0.82, "hqq": 0.82}  # RTN g32 beside g128; the others gain more from error feedback
_GROUP_32_OTHER = 0.7
_BIT_FACTORS = {2: 25.0, 3: 4.2, 4: 1.0, 5: 0.28, 6: 0.08, 7: 0.03}
# 3 bits: RTN g128, ln(6.66/5.47) / ln(5.73/5.47) = 4.2; 5 to 7 lie between 4 and Q8_0's 0.0014; 2 bits collapse.


def expected_quality(spec: ModelSpec, scheme: Scheme) -> Quality:
    """Expected loss of `scheme` on a model of this size."""
    if scheme.linear.kind == "float" or scheme.gguf_type in {"F16", "BF16"}:
        return Quality(0.0, "lossless", "16-bit weights are the original's")
    base, kind, source = _at_8b(scheme)
    count = _parameters(spec)
    scale = (REFERENCE_PARAMETERS / count) ** SIZE_EXPONENT
    size = f"; times {scale:.2g} for {count / 1e9:.2g}B parameters" if abs(scale - 1) > 0.05 else ""
    return Quality(base * scale, kind, source + size)


@cache
def _parameters(spec: ModelSpec) -> int:
    return parameters(spec)


def _at_8b(scheme: Scheme) -> tuple[float, Kind, str]:
    if scheme.gguf_type is not None:
        if scheme.gguf_type in _GGUF:
            return _GGUF[scheme.gguf_type], "published", _LLAMACPP
        value, source = _GGUF_BETWEEN[scheme.gguf_type]
        return value, "interpolated", source
    if scheme.act_bits == 8:
        return 0.006, "interpolated", "SmoothQuant (2211.10438) finds W8A8 near lossless; between Q8_0 and Q5_K_M"
    return _integer(scheme)


def _integer(scheme: Scheme) -> tuple[float, Kind, str]:
    grid = scheme.linear
    if grid.bits == 8:
        groups = "" if grid.group_size == 32 else f"; adjusted for {_groups(grid.group_size)}"
        value = _GGUF["Q8_0"] * _group_factor("rtn", grid.group_size) / _group_factor("rtn", 32)
        return value, "interpolated", f"as Q8_0, 8 bits in groups of 32 ({_LLAMACPP}){groups}"
    parts = scheme.method.split("+")
    named = [(m, _INT4_G128[m]) for m in parts if m in _INT4_G128] or [("rtn", _INT4_G128["rtn"])]
    method, (value, found, source) = min(named, key=lambda x: x[1][0])
    kind: Kind = "published" if found == "published" and grid.bits == 4 and grid.group_size == 128 else "interpolated"
    if len(named) > 1:
        value, kind, source = value * _COMBINED, "interpolated", f"{source}; a little better combined (NNCF)"
    notes = []
    if grid.bits != 4:
        value *= _BIT_FACTORS[grid.bits]
        notes.append(f"{grid.bits} bits")
    if grid.group_size != 128:
        value *= _group_factor(method, grid.group_size)
        notes.append(_groups(grid.group_size))
    if grid.symmetric and grid.bits <= 4:
        value *= 1.15
        notes.append("no zero point")
    return value, kind, source + (f"; adjusted for {', '.join(notes)}" if notes else "")


def _groups(size: int) -> str:
    return f"groups of {size}" if size > 0 else "one scale a row"


def _group_factor(method: str, group: int) -> float:
    """Relative to groups of 128, geometric in the group size; a whole row counts as groups of 4,096."""
    at_32 = _GROUP_32.get(method, _GROUP_32_OTHER)
    size = group if group > 0 else 4096
    return float(at_32 ** (math.log2(128 / size) / 2))
