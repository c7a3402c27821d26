"""The KV cache of `GroupQueryAttention`: its dtype, and the scales of one in integers.

An int8 cache holds `round(x / scale)`, an int4 one two codes a byte, the first in the low bits, each plus 8. The
kernel has no zero points and wants keys and values treated alike, one scale a tensor or a channel of each head. Keys
have channels that are many times larger than the rest, so it is a channel here. The scales are constants: they come
from the ranges that a text shows (`edgeq.decoder.kv_ranges`), and what is larger is clipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from edgeq.checkpoint.weights import Weights
from edgeq.errors import EdgeqError
from edgeq.exporters.onnx.graph import Graph
from edgeq.model.spec import Attention
from edgeq.model.texts import built_in_texts, read_text
from edgeq.model.tokenizer import open_tokenizer

if TYPE_CHECKING:
    from edgeq.decoder.kv_ranges import KvRange

KV_DTYPES = ("f32", "f16", "int8", "int4")
_TYPES = {"f32": TensorProto.FLOAT, "f16": TensorProto.FLOAT16, "int8": TensorProto.INT8, "int4": TensorProto.UINT8}
_BITS = {"int8": 8, "int4": 4}
# Codes span so many times the range that was seen. 8 bits have room to spare for what the text did not show; with 4 it
# costs less to clip the widest (SmolLM2-135M: 0.42 nats at 1.0, 0.25 at 0.8, 0.29 at 0.6).
_MARGIN = {"int8": 1.25, "int4": 0.8}
_TEXT = 1024  # tokens that ranges are taken from, in sequences of _SEQUENCE
_SEQUENCE = 512
_SMALLEST = 1e-6  # the scale of a channel that is always zero


@dataclass(frozen=True, slots=True)
class Caches:
    """Inputs and outputs of the graph, and what the operator is told of them.

    Attributes:
        ranges: of every layer, where the dtype is an integer.
    """

    dtype: str = "f32"
    ranges: Sequence[KvRange] = ()

    def declare(self, graph: Graph, layer: int, spec: Attention) -> tuple[list[str], list[str]]:
        """The names of past keys and values, and of present ones."""
        past, present = [], []
        width = spec.head_dim // 2 if self.dtype == "int4" else spec.head_dim
        for part in ("key", "value"):
            shape: list[int | str] = ["batch", spec.kv_heads, "past", width]
            past.append(graph.input(f"past_key_values.{layer}.{part}", _TYPES[self.dtype], shape))
            shape = ["batch", spec.kv_heads, "present", width]
            present.append(graph.output(f"present.{layer}.{part}", _TYPES[self.dtype], shape))
        return past, present

    def scales(self, graph: Graph, layer: int) -> list[str]:
        """The operator's inputs `k_scale` and `v_scale`; none for a cache of floats."""
        if self.dtype not in _BITS:
            return []
        ranges = self.ranges[layer]
        parts = (("key", ranges.keys), ("value", ranges.values))
        return [graph.constant(f"layers.{layer}.{n}_scale", self._scale(r)) for n, r in parts]

    def attributes(self) -> Mapping[str, int | str]:
        if self.dtype not in _BITS:
            return {}
        kind = "PER_CHANNEL"
        return {"k_quant_type": kind, "v_quant_type": kind, "kv_cache_bit_width": _BITS[self.dtype]}

    def _scale(self, largest: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """float32 (1, kv_heads, 1, head_dim), as the operator has it."""
        top = (1 << (_BITS[self.dtype] - 1)) - 1
        scale = np.maximum(largest * (_MARGIN[self.dtype] / top), _SMALLEST)
        shaped: npt.NDArray[np.float32] = scale[None, :, None, :].astype(np.float32)
        return shaped


def check_cache(dtype: str, text: str | Path | None) -> None:
    """Raise an EdgeqError for an unknown dtype, or a text that is not needed or can't be read."""
    if dtype not in KV_DTYPES:
        raise EdgeqError(f"a KV cache of {dtype!r} is not known", hint=f"One of {', '.join(KV_DTYPES)}")
    if text is None:
        return
    if dtype not in _BITS:
        raise EdgeqError(f"a KV cache in {dtype} needs no text", hint="Leave --kv-text out, or ask for int8 or int4")
    read_text(Path(text))


def calibrated(weights: Weights, dtype: str, text: str | Path | None, context: int) -> Caches:
    """Caches of a dtype, their ranges taken from a text: of a file, or the passages that come with edgeq.

    Raises:
        EdgeqError: the text can't be read; the model has no tokenizer.
    """
    if dtype not in _BITS:
        return Caches(dtype)
    from edgeq.decoder.kv_ranges import kv_ranges

    words = "\n\n".join(built_in_texts()) if text is None else read_text(Path(text))
    ids = list(open_tokenizer(weights.tokenizer_files(), weights.spec.name).encode(words))[:_TEXT]
    length = min(_SEQUENCE, context)
    return Caches(dtype, kv_ranges(weights, [ids[at : at + length] for at in range(0, len(ids), length)]))
