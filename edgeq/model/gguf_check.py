"""Whether a GGUF file's tensors are those its metadata promise."""

from __future__ import annotations

from edgeq.errors import EdgeqError
from edgeq.model.gguf_file import GgufFile
from edgeq.model.names import gguf_slices
from edgeq.model.spec import ModelSpec
from edgeq.model.tensors import tensors


def check_tensors(spec: ModelSpec, file: GgufFile) -> None:
    """Raise an EdgeqError naming the first tensor that is missing or has another shape."""
    shapes = {t.name: t.shape for t in tensors(spec)}
    wanted: dict[str, tuple[int, ...]] = {}
    for canonical, found in gguf_slices(spec).items():
        shape, before = shapes[canonical], wanted.get(found.name)
        if before is not None and found.row_start is not None:
            shape = (before[0] + shape[0], *shape[1:])
        wanted[found.name] = shape
    for name, shape in wanted.items():
        if name not in file.tensors:
            if name.endswith("attn_kv_b.weight"):  # newer files hold it as attn_k_b and attn_v_b
                continue
            raise EdgeqError(f"tensor {name} is missing", where=file.path, hint="Download the file again")
        stored = file.tensors[name].shape
        if _squeezed(stored) != _squeezed(shape):
            raise EdgeqError(
                f"tensor {name}: the metadata need shape {list(shape)}, the file has {list(stored)}", where=file.path
            )


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for n in shape if n != 1)
