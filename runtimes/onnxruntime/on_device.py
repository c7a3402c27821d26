"""Sequences whose KV cache lives in a device's own memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort

from edgeq.runtimes.onnxruntime.engine import OnnxEngine


class DeviceEngine(OnnxEngine):
    """Past and present of each layer are one buffer on the device, so a step moves only tokens, mask and logits.

    `memory` is onnxruntime's name of the device ("cuda", "dml"). "cpu" works too: what the tests run.
    """

    def __init__(self, *given: Any, memory: str, **options: Any) -> None:
        self._memory = memory
        self._values: dict[str, ort.OrtValue] = {}
        super().__init__(*given, **options)

    def _grow(self, capacity: int) -> None:
        """Larger buffers, one at a time; what the old ones held goes through main memory."""
        used = self._position
        for cache in self.graph.caches:
            shape = (1, cache.kv_heads, capacity, cache.width)
            array = np.zeros(shape, cache.dtype)
            if used:
                array[:, :, :used] = self._values[cache.past].numpy()[:, :, :used]
            value = ort.OrtValue.ortvalue_from_shape_and_type(shape, cache.dtype, self._memory, 0)
            value.update_inplace(array)
            for binding in (self._one, self._many):
                binding.bind_ortvalue_input(cache.past, value)
                binding.bind_ortvalue_output(cache.present, value)
            self._values[cache.past] = value
        self._capacity = capacity

    def close(self) -> None:
        super().close()
        self._values.clear()
