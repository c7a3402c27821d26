"""Small GGUF files, written by gguf-py, the format's own library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def write_gguf(tmp_path: Path) -> Callable[..., Path]:
    """A function: (architecture, metadata, tensor shapes) -> the path of a GGUF of zeros (or the given arrays)."""

    def write(arch: str, metadata: Mapping[str, Any], shapes: Mapping[str, Any], name: str = "m.gguf") -> Path:
        gguf = pytest.importorskip("gguf")
        writer = gguf.GGUFWriter(str(tmp_path / name), arch)
        for key, value in metadata.items():
            _add(writer, key, value)
        for tensor, shape in shapes.items():
            values = shape if isinstance(shape, np.ndarray) else np.zeros(shape, np.float32)
            writer.add_tensor(tensor, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return tmp_path / name

    return write


def _add(writer: Any, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)
