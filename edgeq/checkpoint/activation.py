"""ActivationGrid: which 8-bit values the input of a linear layer takes in a model with quantized activations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgeq.errors import EdgeqError


@dataclass(frozen=True, slots=True)
class ActivationGrid:
    """How a linear layer's input is rounded before it is multiplied: `(clamp(round(x / scale) + zero) - zero) * scale`.

    Rounding is half to even, arithmetic float32. Runtimes differ in what they call dynamic (ONNX's
    DynamicQuantizeLinear takes one scale a tensor); this is the checkpoint's definition, one scale a token.

    Attributes:
        kind: `dynamic`: scale and zero point are those of each token's own range; `static`: one pair for all.
        symmetric: codes are -(2**(bits-1) - 1) .. 2**(bits-1) - 1 and zero is 0; otherwise codes are 0 .. 2**bits - 1
            and the range, which holds 0, ends at both ends of the codes.
        scale, zero_point: of a static grid; None on a dynamic one.

    Raises:
        EdgeqError: values that contradict each other.
    """

    kind: Literal["dynamic", "static"] = "dynamic"
    bits: int = 8
    symmetric: bool = True
    scale: float | None = None
    zero_point: int | None = None

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise EdgeqError(f"activations of {self.bits} bits", hint="2 to 16")
        if (self.kind == "static") != (self.scale is not None) or (self.scale is None) != (self.zero_point is None):
            raise EdgeqError("a static activation grid has a scale and a zero point, a dynamic one neither")
        if self.scale is not None and not 0 < self.scale < float("inf"):
            raise EdgeqError(f"an activation scale of {self.scale}")
        low, high = self.codes
        if self.zero_point is not None and not low <= self.zero_point <= high:
            raise EdgeqError(f"an activation zero point of {self.zero_point} among codes {low}..{high}")

    @property
    def codes(self) -> tuple[int, int]:
        """The smallest and the largest code."""
        if self.symmetric:
            top = (1 << (self.bits - 1)) - 1
            return -top, top
        return 0, (1 << self.bits) - 1
