"""The schemes a plan considers, and which of them edgeq can make today."""

from __future__ import annotations

from edgeq.model.spec import ModelSpec
from edgeq.scheme import GGUF_BASE, Scheme, named_scheme

INTEGER = (
    "rtn-int4-g32",
    "rtn-int4-g128",
    "hqq-int4-g64",
    "gptq-int4-g32",
    "gptq-int4-g128-sym",
    "awq-int4-g128",
    "awq+gptq-int4-g32",
    "autoround-int4-g128",
    "autoround-int2-g64",
    "gptq-int3-g128",
    "rtn-int8-g32",
    "w8a8-smooth",
)
FLOAT = ("fp16", "fp32")

METHODS = {"rtn", "none", "hqq", "gptq", "qronos", "awq", "autoround", "smoothquant"}  # what `edgeq quantize` does
TEXTLESS = {"rtn", "none", "hqq"}  # of these, what needs no calibration text: done at the speed of the disk
TARGETS = {"onnxruntime/cpu", "onnxruntime/android"}  # what `edgeq export` writes for today


def schemes() -> tuple[Scheme, ...]:
    """Every scheme considered, integer, floating and GGUF."""
    return tuple(named_scheme(n) for n in (*INTEGER, *FLOAT, *(f"gguf-{t.lower()}" for t in GGUF_BASE if t != "BF16")))


def not_yet(spec: ModelSpec, scheme: Scheme, target: str) -> str | None:
    """Why edgeq can't make this artifact itself today, or None when it can. Planning does not depend on it."""
    if target.startswith("llamacpp/"):
        return "today edgeq only writes such files (`--grid gguf-...`, `edgeq export --to gguf`)"
    if target not in TARGETS:
        return "today edgeq exports to ONNX Runtime on a processor"
    if not METHODS.issuperset(scheme.method.split("+")):
        return f"edgeq quantizes by {', '.join(sorted(METHODS - {'none'}))}, not by {scheme.method}"
    if scheme.linear.kind == "float":
        return "today edgeq plans unquantized weights, but makes quantized ones"
    if not spec.dense:
        return "today edgeq runs dense models: softmax attention and one feed-forward a layer"
    return None
