"""Safetensors: a strict parser of the header, and tensors read through a memory map.

Format: an unsigned 64-bit little-endian header length, that many bytes of JSON, then the tensors' bytes without holes
(https://github.com/huggingface/safetensors#format). Nothing is trusted: a header may come from anywhere.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.errors import EdgeqError
from edgeq.model.mapped import MappedFile

MAX_HEADER = 100_000_000  # the reference implementation's limit
CHUNK_BYTES = 1 << 26  # mapped at once while a tensor is converted
DAMAGED = "The file is damaged or not safetensors; fetch it again"

# dtype -> bits of one element. The narrow ones can be listed but not read.
BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "I8", "U8", "BOOL"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
NUMPY = {
    **{f"F{b}": f"<f{b // 8}" for b in (16, 32, 64)},
    **{f"{k}{b}": f"<{k.lower()}{b // 8}" for k in "IU" for b in (8, 16, 32, 64)},
    "BOOL": "?",
}
ML_DTYPES = {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu"}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a file; `start` and `end` are byte offsets in the file."""

    name: str
    dtype: str  # F32, BF16, F8_E4M3, ...
    shape: tuple[int, ...]
    start: int
    end: int


class SafetensorsFile:
    """A safetensors file, opened by its header alone.

    Attributes:
        tensors: name -> TensorInfo, in the header's order.
        metadata: the header's `__metadata__`.
    """

    def __init__(self, file: MappedFile, tensors: dict[str, TensorInfo], metadata: dict[str, str]) -> None:
        self.path = file.path
        self.tensors = tensors
        self.metadata = metadata
        self._file = file

    @classmethod
    def open(cls, path: str | Path) -> SafetensorsFile:
        """Read and check the header; no tensor is touched.

        Raises:
            EdgeqError: the file is missing, truncated, damaged or hostile.
        """
        file = MappedFile(Path(path))
        header, data = _header(file)
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
            raise _bad(file.path, "__metadata__ is not a table of strings")
        tensors = {name: _tensor(name, entry, data, file) for name, entry in header.items()}
        _check_layout(tensors, data, file)
        return cls(file, tensors, metadata)

    def read(self, name: str, rows: slice | None = None) -> npt.NDArray[np.float32]:
        """float32, the tensor's shape (or that of the asked rows of its first dimension).

        Raises:
            EdgeqError: no such tensor, or a dtype that has no float value (F4, F6, complex).
        """
        info = self._info(name)
        kind = self._dtype(info)
        if not info.shape:
            return _widen(self.raw(name).view(kind), info.dtype).reshape(())
        first, last, step = (rows or slice(None)).indices(info.shape[0])
        if step != 1:
            raise EdgeqError(f"rows must be read in steps of one, not {step}", where=self.path)
        last = max(first, last)
        width = math.prod(info.shape[1:])
        if info.start == info.end:
            return np.zeros((last - first, *info.shape[1:]), np.float32)
        out = np.empty((last - first, width), np.float32)
        per_chunk = max(1, CHUNK_BYTES // max(1, width * kind.itemsize))
        for a in range(first, last, per_chunk):
            b = min(a + per_chunk, last)
            at = info.start + a * width * kind.itemsize
            piece = self._file.bytes(at, at + (b - a) * width * kind.itemsize).view(kind)
            out[a - first : b - first] = _widen(piece, info.dtype).reshape(b - a, width)
        return out.reshape(last - first, *info.shape[1:])

    def raw(self, name: str) -> npt.NDArray[np.uint8]:
        """uint8 (bytes,), read-only and memory-mapped: the tensor as it is stored."""
        info = self._info(name)
        return self._file.bytes(info.start, info.end)

    def _info(self, name: str) -> TensorInfo:
        if name not in self.tensors:
            raise EdgeqError(f"no tensor {short(name)} in this file", where=self.path)
        return self.tensors[name]

    def _dtype(self, info: TensorInfo) -> np.dtype[Any]:
        if info.dtype == "BF16":
            return np.dtype("<u2")
        if info.dtype in NUMPY:
            return np.dtype(NUMPY[info.dtype])
        if info.dtype in ML_DTYPES:
            import ml_dtypes  # only 8-bit floats need it

            eight_bits: np.dtype[Any] = np.dtype(getattr(ml_dtypes, ML_DTYPES[info.dtype]))
            return eight_bits
        raise EdgeqError(f"edgeq can't read tensor {short(info.name)}, stored as {info.dtype}", where=self.path)


def open_shards(folder: str | Path) -> dict[str, SafetensorsFile]:
    """Tensor name -> the file that holds it, for a folder with one `model.safetensors` or an index and shards.

    Raises:
        EdgeqError: nothing to read, a bad index, a shard that is missing or lacks a tensor the index promises.
    """
    folder = Path(folder)
    index = _index_file(folder)
    if index is None:
        return _without_index(folder)
    weight_map = _weight_map(index)
    files = {shard: SafetensorsFile.open(folder / shard) for shard in sorted(set(weight_map.values()))}
    for name, shard in weight_map.items():
        if name not in files[shard].tensors:
            raise EdgeqError(f"the index promises tensor {short(name)}, the shard lacks it", where=folder / shard)
    return {name: files[shard] for name, shard in weight_map.items()}


def short(name: str) -> str:
    """A name from a file, safe to print in one line."""
    return repr(name if len(name) <= 100 else name[:97] + "...")


def absurd(shape: Sequence[int]) -> bool:
    """More elements than an index can count, even where another dimension is zero."""
    return math.prod(max(1, n) for n in shape) >= 1 << 63


def load_json(text: bytes, where: Path) -> Any:
    """JSON that may come from anywhere: UTF-8, no duplicate keys, no nesting beyond the interpreter's limit."""
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=_no_duplicates)
    except UnicodeDecodeError as error:
        raise _bad(where, "the JSON is not UTF-8") from error
    except RecursionError as error:
        raise _bad(where, "the JSON is nested too deeply") from error
    except ValueError as error:
        raise _bad(where, f"bad JSON: {str(error)[:200]}") from error


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        seen: set[str] = set()
        twice = next(k for k, _ in pairs if k in seen or seen.add(k))  # type: ignore[func-returns-value]
        raise ValueError(f"{short(twice)} appears twice")
    return table


def _header(file: MappedFile) -> tuple[dict[str, Any], int]:
    """The header as a table, and where the tensors' bytes begin."""
    if file.size < 8:
        raise _bad(file.path, f"truncated: {file.size} bytes")
    length = int.from_bytes(file.bytes(0, 8).tobytes(), "little")
    if length > MAX_HEADER:
        raise _bad(file.path, f"the header claims {length} bytes, more than {MAX_HEADER}")
    if 8 + length > file.size:
        raise _bad(file.path, f"truncated: the header claims {length} bytes, the file has {file.size}")
    header = load_json(file.bytes(8, 8 + length).tobytes(), file.path)
    if not isinstance(header, dict):
        raise _bad(file.path, "the header is not a JSON object")
    return header, 8 + length


def _tensor(name: str, entry: Any, data: int, file: MappedFile) -> TensorInfo:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _bad(file.path, f"tensor {short(name)} lacks dtype, shape or data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise _bad(file.path, f"tensor {short(name)} has unknown dtype {short(str(dtype))}")
    if not _sizes(shape) or absurd(shape) or not _sizes(offsets) or len(offsets) != 2:
        raise _bad(file.path, f"tensor {short(name)} has a bad shape or bad offsets")
    start, end = offsets
    if start > end or data + end > file.size:
        raise _bad(file.path, f"tensor {short(name)} lies at bytes {start}..{end}, the file has {file.size - data}")
    # Python integers don't overflow; a product of absurd sizes just differs from the bytes.
    if math.prod(shape) * BITS[dtype] != (end - start) * 8:
        raise _bad(file.path, f"tensor {short(name)} has {end - start} bytes, its shape and {dtype} need other")
    return TensorInfo(name, dtype, tuple(shape), data + start, data + end)


def _sizes(value: Any) -> bool:
    # Beyond 64 bits no size is honest, and printing or multiplying giant integers costs time.
    fits = (isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 1 << 63 for v in value or ())
    return isinstance(value, list) and len(value) <= 32 and all(fits)


def _check_layout(tensors: dict[str, TensorInfo], data: int, file: MappedFile) -> None:
    """The format allows no overlap, no hole and nothing behind the last tensor."""
    at = data
    for t in sorted(tensors.values(), key=lambda t: (t.start, t.end)):
        if t.start != at:
            problem = "overlaps another" if t.start < at else f"leaves a hole of {t.start - at} bytes before it"
            raise _bad(file.path, f"tensor {short(t.name)} {problem}")
        at = t.end
    if at != file.size:
        raise _bad(file.path, f"{file.size - at} bytes follow the last tensor")


def _widen(piece: npt.NDArray[Any], dtype: str) -> npt.NDArray[np.float32]:
    if dtype == "BF16":  # the upper half of a float32
        return (piece.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return piece.astype(np.float32)


def _index_file(folder: Path) -> Path | None:
    if not folder.is_dir():
        raise EdgeqError("no such model folder", where=folder)
    found = sorted(folder.glob("*.safetensors.index.json"))
    preferred = folder / "model.safetensors.index.json"
    return preferred if preferred in found else (found[0] if found else None)


def _without_index(folder: Path) -> dict[str, SafetensorsFile]:
    single = folder / "model.safetensors"
    paths = [single] if single.is_file() else sorted(folder.glob("*.safetensors"))
    if not paths:
        raise _nothing_to_read(folder)
    if len(paths) > 1:
        raise EdgeqError(f"{len(paths)} safetensors files and no index", where=folder, hint="Add the index.json")
    file = SafetensorsFile.open(paths[0])
    return dict.fromkeys(file.tensors, file)


def _nothing_to_read(folder: Path) -> EdgeqError:
    pickles = [p for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for p in sorted(folder.glob(pattern))]
    if pickles:
        return EdgeqError("only pickle weights here, which edgeq never loads", where=pickles[0], hint=CONVERT)
    return EdgeqError("no safetensors file in this folder", where=folder)


CONVERT = (
    "A pickle can run code. Convert it where you trust it: load it with transformers and "
    "`model.save_pretrained(FOLDER, safe_serialization=True)`"
)


def _weight_map(index: Path) -> dict[str, str]:
    try:
        table = load_json(index.read_bytes(), index)
    except OSError as error:
        raise EdgeqError(f"cannot read the index: {error.strerror}", where=index) from error
    weight_map = table.get("weight_map") if isinstance(table, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise EdgeqError("the index has no weight_map", where=index)
    for name, shard in weight_map.items():
        # A shard's name is a plain file name: anything else could read outside the folder.
        if not isinstance(shard, str) or Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise EdgeqError(f"the index names a bad shard for {short(name)}: {short(str(shard))}", where=index)
    return weight_map


def _bad(path: Path, what: str) -> EdgeqError:
    return EdgeqError(what, where=path, hint=DAMAGED)
