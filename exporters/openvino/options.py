"""What an export to OpenVINO may be asked for, and what the devices refuse."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgeq.checkpoint.weights import Weights
from edgeq.errors import EdgeqError
from edgeq.estimate.openvino_grids import npu_takes
from edgeq.exporters.folder import grid_of, positions, rounded_inputs
from edgeq.exporters.openvino.storable import layout
from edgeq.model.tensors import tensors
from edgeq.scheme import Grid

# Cache dtypes that each device's plugin takes, its own choice first.
KV_DTYPES = {
    "cpu": ("u8", "u4", "bf16", "f16", "f32"),
    "gpu": ("f16", "u8", "u4"),
    "npu": ("f16",),
}
_GROUP = 32  # input channels that share a scale where the CPU plugin rounds inputs to 8 bits: its own default
_GPU_TYPES = ("u4", "i4", "u8", "i8")


@dataclass(frozen=True, slots=True)
class Settings:
    """An export's options, none left open.

    Attributes:
        context: longest sequence.
        kv_dtype: of the key/value cache.
        dynamic_quantization: input channels that share a scale where inputs of compressed matrices are rounded to
            8 bits at run time; 0: they stay float.
    """

    context: int
    device: str
    kv_dtype: str
    dynamic_quantization: int

    def json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    def properties(self) -> dict[str, str]:
        """What the plugins are told by the written model."""
        found = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": str(self.dynamic_quantization)}
        return {} if self.device == "npu" else found | {"KV_CACHE_PRECISION": self.kv_dtype}


def settled(
    checkpoint: Weights, *, context: int | None, device: str, kv_dtype: str | None, dynamic_quantization: int | None
) -> Settings:
    """The options with their defaults.

    Raises:
        EdgeqError: one is out of range, or the device can't run this checkpoint.
    """
    if device not in KV_DTYPES:
        raise EdgeqError(f"OpenVINO has no device {device!r}", hint=f"Known: {', '.join(KV_DTYPES)}")
    known = KV_DTYPES[device]
    if kv_dtype is not None and kv_dtype not in known:
        raise EdgeqError(f"OpenVINO keeps no {kv_dtype} cache on the {device}", hint=f"It takes {', '.join(known)}")
    if dynamic_quantization is not None and dynamic_quantization < 0:
        raise EdgeqError(f"dynamic quantization in groups of {dynamic_quantization}", hint="0 turns it off")
    for reason, hint in _unfit(checkpoint, device):
        raise EdgeqError(f"the {device} can't run this checkpoint: {reason}", where=checkpoint.spec.name, hint=hint)
    return Settings(
        positions(checkpoint.spec, context),
        device,
        kv_dtype or known[0],
        _dynamic(checkpoint, dynamic_quantization),
    )


def _dynamic(checkpoint: Weights, wanted: int | None) -> int:
    """The group that is written, after the plugin's own limits."""
    grids = _linear_grids(checkpoint)
    two_bits = any(g.kind != "float" and layout(g, max(1, g.group_size)).type == "u2" for g in grids)
    if two_bits and wanted:
        raise EdgeqError(
            "OpenVINO 2026.4 crashes or returns nothing on 2-bit weights with dynamic quantization",
            where=checkpoint.spec.name,
            hint="Leave it out: it is turned off for them",
        )
    inputs = {grid.kind for grid in rounded_inputs(checkpoint)}
    if wanted == 0 and "dynamic" in inputs:
        raise EdgeqError(
            "this checkpoint's inputs are rounded to 8 bits at run time, which is what dynamic quantization does",
            where=checkpoint.spec.name,
            hint="Leave it on, or quantize with --activations float",
        )
    # Static inputs have their grids in the graph: what else would be rounded is what the checkpoint leaves float.
    off = two_bits or "static" in inputs
    return wanted if wanted is not None else 0 if off else _GROUP


def _linear_grids(checkpoint: Weights) -> list[Grid]:
    spec = checkpoint.spec
    linear = (t for t in tensors(spec) if t.linear or (t.role == "embed" and spec.tied))
    return list(dict.fromkeys(grid_of(checkpoint, t) for t in linear))


def _unfit(checkpoint: Weights, device: str) -> Iterator[tuple[str, str]]:
    """What the device's compiler would fail on, or run slowly, deep inside."""
    spec = checkpoint.spec
    if device == "npu":
        if not all(npu_takes(grid_of(checkpoint, t)) for t in tensors(spec) if t.linear and t.role != "head"):
            hint = "Quantize with --bits 4 --group-size 128 --symmetric"
            yield "it takes symmetric int4 in groups of 128 or whole rows only", hint
        if rounded_inputs(checkpoint):
            yield "its compiler takes no rounded inputs of an LLM", "Quantize with --activations float"
    if device == "gpu":
        types = {layout(g, max(1, g.group_size)).type for g in _linear_grids(checkpoint) if g.kind != "float"}
        for kind in sorted(types - set(_GPU_TYPES)):
            yield f"it keeps no {kind} weights compressed", "Quantize to int4 or int8"
