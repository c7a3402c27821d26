"""What an ONNX export is asked for, and everything that is refused before a file is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeq.checkpoint.weights import Weights
from edgeq.decoder.decoder import check_supported
from edgeq.errors import EdgeqError
from edgeq.estimate.onnx_grids import PACKS, Pack
from edgeq.exporters.folder import grids_of, rounded_inputs
from edgeq.exporters.onnx.activations import SCALES, refuses_activation
from edgeq.exporters.onnx.grids import refuses
from edgeq.exporters.onnx.kv_cache import check_cache
from edgeq.exporters.onnx.onnx_ops import OnnxOps
from edgeq.exporters.onnx.ort_format import FORMATS, check_size
from edgeq.exporters.onnx.standard_ops import StandardOps
from edgeq.model.spec import Attention, ModelSpec

DIALECTS = ("contrib", "standard")
LEVELS = (0, 4)
BUFFERS = ("growing", "shared")  # of the KV cache
DTYPES = {"float32": "f32", "float16": "f16"}  # of activations, and that of a cache of the same


@dataclass(frozen=True, slots=True)
class Settings:
    """See `edgeq.exporters.onnx.export.export`.

    Raises:
        EdgeqError: a value that is not known, or two that don't go together.
    """

    accuracy_level: int = 4
    activation_scales: str = "token"
    dialect: str = "contrib"
    pack: Pack = "fast"
    kv_dtype: str | None = None
    kv_text: str | Path | None = None
    dtype: str = "float32"
    format: str = "onnx"
    kv_buffer: str | None = None

    def __post_init__(self) -> None:
        if self.accuracy_level not in LEVELS:
            raise EdgeqError(f"accuracy level {self.accuracy_level} is not known", hint="0 (float32) or 4 (int8)")
        scales = ("kind of activation scales", self.activation_scales, SCALES)
        for what, value, known in (
            ("dialect", self.dialect, DIALECTS),
            ("packing", self.pack, PACKS),
            ("dtype", self.dtype, tuple(DTYPES)),
            ("format", self.format, FORMATS),
            ("KV buffer", self.buffer, BUFFERS),
            scales,
        ):
            if value not in known:
                raise EdgeqError(f"the {what} {value!r} is not known", hint=f"One of {', '.join(known)}")
        if self.standard and self.format == "ort":
            what = "an .ort file is onnxruntime's alone, so standard operators are of no use in it"
            raise EdgeqError(what, hint="Leave --dialect out, or --format")
        if not self.standard and self.buffer == "growing":
            what = "onnxruntime's own attention keeps its cache in a shared buffer"
            raise EdgeqError(what, hint="Leave --kv-buffer out, or ask for --dialect standard")
        check_cache(self.cache, self.kv_text)
        if self.standard and self.cache != DTYPES[self.dtype]:
            hint = "Leave --kv-dtype out, or --dialect standard"
            raise EdgeqError(f"standard operators have no KV cache of {self.cache}", hint=hint)
        if self.half and self.cache == "f32":
            raise EdgeqError("a graph in float16 has no KV cache of f32", hint="Leave --kv-dtype or --dtype out")

    @property
    def standard(self) -> bool:
        return self.dialect == "standard"

    @property
    def buffer(self) -> str:
        """Whether caches grow, by copying, or are written into in place. Unless asked for it is what most runtimes run:
        standard operators that share a buffer need opset 24."""
        return self.kv_buffer or ("growing" if self.standard else "shared")

    @property
    def half(self) -> bool:
        return self.dtype == "float16"

    @property
    def cache(self) -> str:
        """The dtype of the KV cache: that of the activations, unless another is asked for."""
        return self.kv_dtype or DTYPES[self.dtype]


def check(checkpoint: Weights, settings: Settings) -> set[str]:
    """The kinds of rounded inputs the checkpoint has.

    Raises:
        EdgeqError: an architecture, shape or grid that the dialect or onnxruntime's kernels can't run.
    """
    spec = checkpoint.spec
    where = spec.location or spec.name
    check_supported(spec, StandardOps.able if settings.standard else OnnxOps.able)
    _check_shapes(spec, contrib=not settings.standard)
    if settings.format == "ort":
        check_size(checkpoint, 2 if settings.half else 4)
    for grid in grids_of(checkpoint):
        if reason := refuses(grid):
            raise EdgeqError(f"this checkpoint can't be exported to onnx: {reason}", where=where)
    inputs = rounded_inputs(checkpoint)
    for rounded in inputs:
        if reason := refuses_activation(rounded):
            raise EdgeqError(f"this checkpoint can't be exported to onnx: {reason}", where=where)
    kinds: set[str] = {grid.kind for grid in inputs}
    if settings.half and kinds:
        what = "onnxruntime multiplies 8-bit inputs in float32 graphs only"
        raise EdgeqError(what, where=where, hint="Leave --dtype out")
    if settings.activation_scales != "token" and "dynamic" not in kinds:
        raise EdgeqError("this checkpoint has no dynamic activations to scale", hint="Leave --activation-scales out")
    return kinds


def _check_shapes(spec: ModelSpec, *, contrib: bool) -> None:
    """`GroupQueryAttention` takes heads and rotations of some widths, and a session caches of one shape."""
    where = spec.location or spec.name
    mixers = {x.mixer for x in spec.layers if isinstance(x.mixer, Attention)}
    for layer in mixers if contrib else ():
        unit = 8 if layer.rope is None else 16
        if layer.head_dim % unit:
            raise EdgeqError(f"onnxruntime needs heads of a multiple of {unit}, not {layer.head_dim}", where=where)
        if layer.rope is not None and layer.rope.dim % 16:
            raise EdgeqError(f"onnxruntime can't rotate {layer.rope.dim} dimensions, only multiples of 16", where=where)
    if len({(m.kv_heads, m.head_dim) for m in mixers}) > 1:
        raise EdgeqError("layers with caches of different shapes can't be exported yet", where=where)
