"""Checkpoint: a quantized model on disk, opened as `Weights`. No runtime's format.

A folder of safetensors shards, one a layer, with a manifest. A quantized tensor `t` is up to five entries: `t.codes`
(uint8, packed along its columns), `t.scales`, `t.zero_points` (integer ones packed like codes) unless its grid is
symmetric, `t.super_scales` and `t.super_zeros` where it has super-blocks. A float one is stored under its own name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.artifact import sha256
from edgeq.checkpoint.activation import ActivationGrid
from edgeq.checkpoint.manifest import AGAIN, Manifest, StoredTensor, check_file, read_manifest
from edgeq.checkpoint.pack import pack, unpack
from edgeq.checkpoint.tensor import Parameters, QuantizedTensor, groups_of
from edgeq.checkpoint.weights import Weight
from edgeq.errors import EdgeqError
from edgeq.model.safetensors_file import SafetensorsFile
from edgeq.model.spec import ModelSpec
from edgeq.scheme import Grid, Scheme

TOKENIZER = "tokenizer"  # subfolder
SCALES = {"f16": "F16", "f32": "F32"}
NUMPY = {"F16": "<f2", "F32": "<f4", "U8": "u1", "I8": "i1"}
PARAMETERS = ("scales", "zero_points", "super_scales", "super_zeros")


class Checkpoint:
    """A neutral quantized checkpoint. Implements `Weights`; a shard is checksummed when it is first read."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self._shards: dict[str, SafetensorsFile] = {}

    @classmethod
    def open(cls, path: str | Path) -> Checkpoint:
        """Read the manifest; no tensor is touched.

        Raises:
            EdgeqError: not a checkpoint, or a damaged one.
        """
        folder = Path(path).expanduser()
        return cls(folder, read_manifest(folder))

    def __repr__(self) -> str:
        return f"Checkpoint({str(self.path)!r}, {self.spec.name}, {self.scheme.name}, {self.total_bytes:,} bytes)"

    @property
    def spec(self) -> ModelSpec:
        return self.manifest.spec

    @property
    def scheme(self) -> Scheme:
        return self.manifest.scheme

    @property
    def total_bytes(self) -> int:
        """Of every file the manifest names."""
        return sum(f.bytes for f in self.manifest.files.values())

    @property
    def weight_bytes(self) -> int:
        """Of the shards alone."""
        shards = {t.shard for t in self.manifest.tensors.values()}
        return sum(self.manifest.files[s].bytes for s in shards)

    def names(self) -> Sequence[str]:
        return tuple(self.manifest.tensors)

    def load(self, name: str) -> Weight:
        """A QuantizedTensor (stacked experts as one matrix, their rows one below the other), or float32.

        Raises:
            EdgeqError: no such tensor, or its shard is damaged.
        """
        entry = self._entry(name)
        shard = self._shard(entry.shard)
        if entry.grid.kind == "float":
            self._expect(shard, name, entry.shape)
            return shard.read(name)
        return self._quantized(shard, name, entry)

    def activation(self, name: str) -> ActivationGrid | None:
        """What the input of the linear layer `name` is rounded to; None: it stays float.

        Raises:
            EdgeqError: no such tensor.
        """
        return self._entry(name).activation

    def tokenizer_files(self) -> dict[str, Path | bytes]:
        """Raises an EdgeqError when one is not as it was written."""
        prefix = f"{TOKENIZER}/"
        names = [n for n in self.manifest.files if n.startswith(prefix)]
        for name in names:
            self._check_sum(name)
        return {n.removeprefix(prefix): self.path / n for n in names}

    def verify(self) -> None:
        """Check every file's checksum.

        Raises:
            EdgeqError: naming the first that is damaged.
        """
        for name in self.manifest.files:
            self._check_sum(name)

    def _entry(self, name: str) -> StoredTensor:
        entry = self.manifest.tensors.get(name)
        if entry is None:
            raise EdgeqError(f"the checkpoint has no tensor {name!r}", where=self.path)
        return entry

    def _shard(self, name: str) -> SafetensorsFile:
        if name not in self._shards:
            if name not in self.manifest.files:
                raise EdgeqError(f"the manifest lists no shard {name!r}", where=self.path, hint=AGAIN)
            self._check_sum(name)
            self._shards[name] = SafetensorsFile.open(self.path / name)
        return self._shards[name]

    def _check_sum(self, name: str) -> None:
        entry = self.manifest.files[name]
        check_file(self.path, name, entry)
        if sha256(self.path / name) != entry.sha256:
            raise EdgeqError(
                "a file of the checkpoint is damaged (its checksum differs)", where=self.path / name, hint=AGAIN
            )

    def _quantized(self, shard: SafetensorsFile, name: str, entry: StoredTensor) -> QuantizedTensor:
        rows, columns = entry.matrix
        dtypes = {"codes": "U8", **parameter_dtypes(entry.grid)}
        arrays = {f"{name}.{p}": self._stored(shard, f"{name}.{p}", d) for p, d in dtypes.items() if d is not None}
        if len(arrays[f"{name}.codes"]) != rows:
            found = len(arrays[f"{name}.codes"])
            raise EdgeqError(f"{name} has {found} rows, its manifest says shape {entry.shape}", where=self.path)
        return assembled(name, entry.grid, columns, arrays)

    def _stored(self, shard: SafetensorsFile, name: str, dtype: str) -> npt.NDArray[Any]:
        info = shard.tensors.get(name)
        if info is None or info.dtype != dtype or len(info.shape) != 2:
            raise EdgeqError(f"the shard lacks {name} as a {dtype} matrix", where=shard.path, hint=AGAIN)
        return np.array(shard.raw(name).view(NUMPY[dtype])).reshape(info.shape)

    def _expect(self, shard: SafetensorsFile, name: str, shape: tuple[int, ...]) -> None:
        info = shard.tensors.get(name)
        if info is None or info.shape != shape:
            raise EdgeqError(f"the shard lacks {name} with shape {shape}", where=shard.path, hint=AGAIN)


def entries(name: str, weight: Weight, *, half: bool = False) -> dict[str, npt.NDArray[Any]]:
    """What a shard holds of one tensor. `half` stores a float tensor in half precision."""
    if not isinstance(weight, QuantizedTensor):
        return {name: weight.astype(np.float16 if half else np.float32)}
    found = {f"{name}.codes": pack(weight.codes, weight.grid.bits)}
    for part, array in zip(PARAMETERS, weight.parameters.arrays(), strict=True):
        if array is not None:
            packed = part == "zero_points" and weight.grid.zero == "int"
            found[f"{name}.{part}"] = pack(array, weight.grid.bits) if packed else array
    return found


def assembled(name: str, grid: Grid, columns: int, arrays: Mapping[str, npt.NDArray[Any]]) -> QuantizedTensor:
    """The tensor, or some rows of it, of which `entries` made these arrays (extra ones don't matter)."""
    found: list[npt.NDArray[Any] | None] = []
    for part in PARAMETERS:
        array = arrays.get(f"{name}.{part}")
        if array is not None and part == "zero_points" and grid.zero == "int":
            array = unpack(np.ascontiguousarray(array), grid.bits, groups_of(columns, grid.group_size))
        found.append(array)
    codes = unpack(np.ascontiguousarray(arrays[f"{name}.codes"]), grid.bits, columns)
    return QuantizedTensor.of(grid, codes, Parameters(*found))  # type: ignore[arg-type]


def parameter_dtypes(grid: Grid) -> dict[str, str | None]:
    """The safetensors dtype of each parameter a grid stores; None: it stores none."""
    scale, minimum = SCALES[grid.scale_dtype], grid.zero == "float"
    if grid.super_size is None:
        return dict(
            zip(PARAMETERS, (scale, scale if minimum else None if grid.symmetric else "U8", None, None), strict=True)
        )
    codes = "U8" if minimum else "I8"
    return dict(zip(PARAMETERS, (codes, "U8" if minimum else None, scale, scale if minimum else None), strict=True))
