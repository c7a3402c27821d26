"""What a quantization method asks for, as far as its cost goes: one line a method, joined by `+` like the methods.

The plan reads this table, which imports nothing; `edgeq.quantize.predict` derives the same from the methods themselves,
and a test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, reduce


@dataclass(frozen=True, slots=True)
class Effort:
    """Attributes:
    text: it learns from calibration text; without, tensors are searched one by one.
    solves: an error-compensating solver runs, not round to nearest.
    transforms: rewritings of a block that each look at its inputs once.
    steps: of a refinement by gradient descent, 8 sequences each.
    float_stream: the unquantized model's block runs beside the quantized one.
    cross: statistics of both streams together.
    """

    text: bool = False
    solves: bool = False
    transforms: int = 0
    steps: int = 0
    float_stream: bool = False
    cross: bool = False

    def joined(self, other: Effort) -> Effort:
        return Effort(
            self.text or other.text,
            self.solves or other.solves,
            self.transforms + other.transforms,
            max(self.steps, other.steps),
            self.float_stream or other.float_stream,
            self.cross or other.cross,
        )


_SOLVER = Effort(text=True, solves=True)
_TRANSFORM = Effort(text=True, transforms=1)
EFFORTS: dict[str, Effort] = {
    "gptq": _SOLVER,
    "qronos": Effort(text=True, solves=True, float_stream=True, cross=True),
    "sparsegpt": _SOLVER,
    "sparsegpt-2:4": _SOLVER,
    "awq": _TRANSFORM,
    "smoothquant": _TRANSFORM,
    "autoround": Effort(text=True, steps=200, float_stream=True),
    "autoround-light": Effort(text=True, steps=50, float_stream=True),
    "autoround-best": Effort(text=True, steps=1000, float_stream=True),
    "mixed": Effort(text=True),
}


@cache
def effort(method: str) -> Effort:
    """Of a method's name, or several joined by `+`; what is not in the table needs no text."""
    return reduce(Effort.joined, (EFFORTS.get(part, Effort()) for part in method.split("+")))
