"""The schemes a plan considers, and which of them edgeq can make today."""

from __future__ import annotations

from collections.abc import Callable

from edgeq.errors import EdgeqError
from edgeq.model.names import loadable
from edgeq.model.spec import ModelSpec, MoE
from edgeq.registry import exporter
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
# What `edgeq export` writes for today, and with which exporter.
TARGETS = {
    "onnxruntime/cpu": "onnx",
    "onnxruntime/android": "onnx",
    "openvino/cpu": "openvino",
    "llamacpp/cpu": "gguf",
}


def schemes() -> tuple[Scheme, ...]:
    """Every scheme considered, integer, floating and GGUF."""
    return tuple(named_scheme(n) for n in (*INTEGER, *FLOAT, *(f"gguf-{t.lower()}" for t in GGUF_BASE if t != "BF16")))


def not_yet(spec: ModelSpec, scheme: Scheme, target: str) -> str | None:
    """Why edgeq can't make this artifact itself today, or None when it can. Planning does not depend on it."""
    if spec.estimated:
        return f"edgeq does not know how {spec.family} computes"
    if target not in TARGETS:
        if target.startswith("llamacpp/"):
            return "today edgeq writes such files (`edgeq export --to gguf`), but runs them on the processor only"
        return "today edgeq exports to ONNX Runtime, OpenVINO and llama.cpp on a processor"
    if scheme.gguf_type is None and not METHODS.issuperset(scheme.method.split("+")):
        return f"edgeq quantizes by {', '.join(sorted(METHODS - {'none'}))}, not by {scheme.method}"
    if scheme.act_bits != 16 and TARGETS[target] != "onnx":
        return "the plan makes 8-bit activations for ONNX Runtime; OpenVINO's exporter takes them too"
    if scheme.linear.kind == "float" or scheme.gguf_type in {"F16", "BF16"}:
        return "today edgeq plans unquantized weights, but makes quantized ones"
    if not loadable(spec):
        return "today edgeq runs softmax attention with MLPs, or with experts that a softmax weighs"
    return _exporter_refuses(TARGETS[target], spec) or _experts_not_yet(spec, scheme)


def _experts_not_yet(spec: ModelSpec, scheme: Scheme) -> str | None:
    mixture = any(isinstance(x.ffn, MoE) for x in spec.layers)
    return "edgeq smooths no experts" if mixture and "smoothquant" in scheme.method.split("+") else None


def _exporter_refuses(name: str, spec: ModelSpec) -> str | None:
    """What about the model the exporter can't write, where it says so (`refuses_model`)."""
    try:
        refuses: Callable[[ModelSpec], str | None] = getattr(exporter(name), "refuses_model", lambda _: None)
    except EdgeqError:  # a package of the exporter is missing, which says nothing about the model
        return None
    return refuses(spec)
