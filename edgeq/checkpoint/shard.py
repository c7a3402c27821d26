"""Writing safetensors: one tensor after the other, atomically, with the checksum taken on the way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.errors import EdgeqError
from edgeq.files import whole_file

DTYPES = {"float16": "F16", "float32": "F32", "uint8": "U8", "int8": "I8"}
DTYPES |= {"bfloat16": "BF16", "int16": "I16", "int32": "I32", "int64": "I64"}  # of exported folders
ALIGNMENT = 8


def write_shard(
    path: Path, tensors: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Write a safetensors file under its name only when it is whole; (bytes, sha256).

    The same tensors give the same bytes. `metadata` is what the header says beside them.

    Raises:
        EdgeqError: the disk is full or the place can't be written.
    """
    header = _header(tensors, metadata)
    digest, size = hashlib.sha256(), 0
    with whole_file(path) as stream:
        for part in chain([memoryview(header)], map(_bytes, tensors.values())):
            stream.write(part)
            digest.update(part)
            size += len(part)
    return size, digest.hexdigest()


def _header(tensors: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str] | None) -> bytes:
    table: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    at = 0
    for name, t in tensors.items():
        if t.dtype.name not in DTYPES:
            raise EdgeqError(f"a checkpoint holds no {t.dtype.name}", where=name)
        table[name] = {"dtype": DTYPES[t.dtype.name], "shape": list(t.shape), "data_offsets": [at, at + t.nbytes]}
        at += t.nbytes
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _bytes(tensor: npt.NDArray[Any]) -> memoryview:
    little = tensor.astype(tensor.dtype.newbyteorder("<"), copy=False)
    return np.ascontiguousarray(little).reshape(-1).view(np.uint8).data
