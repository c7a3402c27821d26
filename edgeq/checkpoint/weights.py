"""Weights: anything that can be asked for a model's tensors by canonical name (see edgeq.model.tensors)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgeq.checkpoint.activation import ActivationGrid
from edgeq.checkpoint.tensor import QuantizedTensor
from edgeq.model.spec import ModelSpec

Weight = npt.NDArray[np.float32] | QuantizedTensor


class Weights(Protocol):
    """A source model (float tensors read on demand) or a neutral checkpoint (quantized ones).

    `tokenizer_files` are the tokenizer, chat template and generation settings to hand on with the model.
    """

    @property
    def spec(self) -> ModelSpec: ...

    def names(self) -> Sequence[str]: ...

    def load(self, name: str) -> Weight:
        """One tensor: float32, linear weights (out, in); or quantized. A tied head is loaded as `embed`.

        Raises:
            EdgeqError: no such tensor, or the file contradicts the spec.
        """
        ...

    def tokenizer_files(self) -> dict[str, Path | bytes]: ...


def dense(weight: Weight) -> npt.NDArray[np.float32]:
    """The float32 values of a weight, quantized or not."""
    return weight.dequantize() if isinstance(weight, QuantizedTensor) else weight


def activation_of(weights: Weights, name: str) -> ActivationGrid | None:
    """What the input of the linear layer `name` is rounded to, where these weights say so; None: it stays float."""
    asked: Callable[[str], ActivationGrid | None] | None = getattr(weights, "activation", None)
    return None if asked is None else asked(name)
