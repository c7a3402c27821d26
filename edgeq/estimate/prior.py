"""The share of the decode ceiling that runtimes reach, before anything was measured on the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgeq.estimate.formats import runtime_of
from edgeq.model.spec import ModelSpec, MoE
from edgeq.scheme import Scheme

Basis = Literal["measured here", "learned", "kernels measured here", "prior"]


@dataclass(frozen=True, slots=True)
class Expected:
    """Expected tokens/s of all sequences together. `detail` says in words what it rests on."""

    tps: float
    basis: Basis
    detail: str


# Share of the ceiling at 4 bits, by target or runtime, and where it was seen.
_SHARES: dict[str, tuple[float, str]] = {
    "llamacpp/metal": (0.75, "0.75 on an M4 Pro"),
    "llamacpp/cuda": (0.61, "0.61 on A100 and H100"),
    "llamacpp/cpu": (0.57, "0.57-0.62 on a Raspberry Pi 5, 0.56-0.58 on a 2-core Xeon"),
    "llamacpp": (0.50, "assumed between the processors and the GPUs measured"),
    "openvino/cpu": (0.45, "0.39-0.50 on a 2-core Xeon"),
    "openvino": (0.45, "taken from its processor kernels"),
    "onnxruntime/cpu": (0.50, "0.50-0.55 on a 2-core Xeon with a plain session"),
    "onnxruntime": (0.45, "taken from its processor kernels"),
    "torch": (0.45, "30-50 % of peak bandwidth is usual"),
}
_MOE = 0.50 / 0.75  # M4 Pro: 0.50 of the ceiling for a mixture of experts, 0.75 dense

# llama.cpp, Llama-3.1-8B, bytes/s implied by its speed: F16 469, Q8_0 435, Q4_K_M 354, Q2_K 253 GB/s. Fewer bits mean
# more arithmetic a byte. Relative to 4 bits:
_BY_BITS = {16: 469 / 354, 8: 435 / 354, 6: 395 / 354, 5: 375 / 354, 4: 1.0, 3: 304 / 354, 2: 253 / 354}
_LOOK_UP = 0.85  # IQ types look each code up in a table; assumed
_HIGHEST = 0.9  # no runtime was seen above


def prior_share(spec: ModelSpec, scheme: Scheme, target: str) -> tuple[float, str]:
    """Expected share of the decode ceiling, and in words where it comes from."""
    share, source = _SHARES.get(target) or _SHARES.get(runtime_of(target) or "", (0.4, "30-50 % is usual"))
    bits = min(_BY_BITS, key=lambda b: abs(b - scheme.linear.bits))
    share = min(_HIGHEST, share * _BY_BITS[bits])
    adjusted = [f"{bits} bits"] if bits != 4 else []
    if (scheme.gguf_type or "").startswith("IQ"):
        share *= _LOOK_UP
        adjusted.append("look-up tables")
    if any(isinstance(layer.ffn, MoE) for layer in spec.layers):
        share *= _MOE
        adjusted.append("experts")
    return share, source + (f", adjusted for {' and '.join(adjusted)}" if adjusted else "")


def prior_decode(spec: ModelSpec, scheme: Scheme, target: str, ceiling_tps: float) -> Expected:
    """The prior share of a known ceiling."""
    share, source = prior_share(spec, scheme, target)
    return Expected(share * ceiling_tps, "prior", f"{share:.0%} of what is possible ({source})")
