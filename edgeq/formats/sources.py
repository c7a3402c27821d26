"""Quantized models of others as `Weights`: every matrix as a `QuantizedTensor`, its codes and scales as they lie there.

A Hugging Face folder whose `config.json` names its quantization, or a GGUF file. Read on demand; nothing is unpickled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeq.checkpoint.activation import ActivationGrid
from edgeq.checkpoint.tensor import Parameters, QuantizedTensor
from edgeq.checkpoint.weights import Weight, dense
from edgeq.errors import EdgeqError
from edgeq.formats.ggml_blocks import from_blocks
from edgeq.formats.stored_as import HINT, Stored, stored_as
from edgeq.formats.uniform import Array
from edgeq.model.fields import load_json
from edgeq.model.gguf_file import PLAIN
from edgeq.model.names import gguf_permuted
from edgeq.model.read import read_model
from edgeq.model.safetensors_file import NUMPY, TensorInfo, open_shards
from edgeq.model.spec import Attention, ModelSpec, refuse_estimate
from edgeq.model.tensors import TensorSpec
from edgeq.model.weights import PICKLES, FolderWeights, GgufWeights, unpermute
from edgeq.scheme import GGML_GRIDS

Floats = npt.NDArray[np.float32]
FLOATS = {*PLAIN, "BF16"}


class QuantizedFolder(FolderWeights):
    """A Hugging Face folder of a quantized model.

    Attributes:
        stored: how its quantized modules are laid out.
    """

    def __init__(self, folder: Path, spec: ModelSpec, stored: Stored) -> None:
        self.stored = stored
        super().__init__(folder, spec)

    @property
    def method(self) -> str:
        return self.stored.method

    def load(self, name: str) -> Weight:  # type: ignore[override]
        """A QuantizedTensor where the module is quantized, else float32.

        Raises:
            EdgeqError: no such tensor, or its parts contradict each other.
        """
        if experts := self._quantized_experts(name):
            return self._together([self._load(m, name) for m in experts], name)
        module = self._module(name)
        if module is None:
            return super().load(name)
        at, whole = self._slices[name], self._load(module, name)
        if at.row_start is None:
            return whole
        part = slice(at.row_start, at.row_stop)
        return QuantizedTensor.of(whole.grid, whole.codes[part], whole.parameters.rows(part))

    def load_rows(self, name: str, rows: slice) -> Floats:
        if self._module(name) is None and not self._quantized_experts(name):
            return super().load_rows(name, rows)
        return dense(self.load(name)).reshape(self._tensors[name].shape)[rows]

    def activation(self, name: str) -> ActivationGrid | None:
        """What the input of the linear layer `name` is rounded to; None: it stays float.

        Raises:
            EdgeqError: experts whose inputs are rounded differently.
        """
        module = self._module(name)
        places = [module] if module is not None else self._quantized_experts(name)
        found = dict.fromkeys(self.stored.activation(m, self._find, self._raw) for m in places)
        if len(found) > 1:
            raise EdgeqError("the inputs of a layer's experts are on several grids", where=name)
        return next(iter(found), None)

    def _load(self, module: str, name: str) -> QuantizedTensor:
        try:
            return self.stored.load(module, self._tensors[name].shape[-1], self._find, self._raw)
        except EdgeqError as error:
            raise EdgeqError(error.what, where=error.where or self.folder, hint=error.hint) from error

    def _together(self, parts: list[QuantizedTensor], name: str) -> QuantizedTensor:
        """Experts one below the other."""
        if len({q.grid for q in parts}) > 1:
            raise EdgeqError("the experts of a layer are on several grids", where=name)
        columns = zip(*(q.parameters.arrays() for q in parts), strict=True)
        parameters = Parameters(*(None if c[0] is None else np.concatenate(c) for c in columns))  # type: ignore[arg-type]
        return QuantizedTensor.of(parts[0].grid, np.concatenate([q.codes for q in parts]), parameters)

    def _quantized_experts(self, name: str) -> list[str]:
        """The modules of stacked experts that lie one by one; none where they are floats, or no experts."""
        at = self._experts.slices.get(name)
        if at is None or len(at.names) == 1:
            return []
        stems = [n.removesuffix(".weight") for n in at.names]
        return stems if self.stored.holds(stems[0], self._find) else []

    def _module(self, name: str) -> str | None:
        """The quantized module that a canonical tensor lies in."""
        if name not in self._tensors:
            raise EdgeqError(f"the model has no tensor {name!r}", where=self.spec.name)
        if name in self._experts.slices:
            return None
        stem = self._slices[name].name.removesuffix(".weight")
        matrix = len(self._tensors[name].shape) == 2
        return stem if matrix and self.stored.holds(stem, self._find) else None

    def _check(self, t: TensorSpec) -> None:
        experts = self._quantized_experts(t.name)
        for module in experts:
            self._check_rows(module, t, t.shape[1])
        if not experts:
            self._check_other(t)

    def _check_rows(self, module: str, t: TensorSpec, wanted: int) -> None:
        if not self.stored.holds(module, self._find):
            raise self._missing(f"{module}.weight")
        rows = self.stored.rows(module, t.shape[-1], self._find)
        if rows != wanted:
            raise self._other_rows(module, t, rows)

    def _other_rows(self, module: str, t: TensorSpec, rows: int) -> EdgeqError:
        return EdgeqError(
            f"{module} has {rows} output channels, the configuration needs {t.shape[-2]} for {t.name}",
            where=self.folder,
            hint="The weights and the configuration are not of the same model",
        )

    def _check_other(self, t: TensorSpec) -> None:
        module = self._module(t.name)
        if module is None:
            super()._check(t)
            return
        at = self._slices[t.name]
        rows = self.stored.rows(module, t.shape[-1], self._find)
        wanted = t.shape[0] if at.row_start is None else at.row_stop or 0
        if rows != wanted if at.row_start is None else rows < wanted:
            raise self._other_rows(module, t, rows)

    def _find(self, name: str) -> TensorInfo | None:
        file = self._shards.get(name)
        return None if file is None else file.tensors[name]

    def _raw(self, name: str) -> Array:
        """As it is stored; bfloat16 and wider floats in single precision."""
        file = self._shards[name]
        info = file.tensors[name]
        if info.dtype not in NUMPY or info.dtype in ("F32", "F64"):
            return file.read(name)
        return np.array(file.raw(name).view(NUMPY[info.dtype])).reshape(info.shape)


class QuantizedGguf(GgufWeights):
    """A GGUF file, its blocks kept as they are.

    Raises:
        EdgeqError: a tensor of a block type that edgeq has no grid for.
    """

    method = "llama.cpp"

    def __init__(self, path: Path, spec: ModelSpec) -> None:
        super().__init__(path, spec)
        for name in self._tensors:
            kind = self._file.tensors[self._slices[name].name].type
            if kind not in GGML_GRIDS and kind not in FLOATS:
                known = ", ".join((*GGML_GRIDS, "F16", "BF16", "F32"))
                raise EdgeqError(
                    f"tensor {self._slices[name].name} has type {kind}, which edgeq has no grid for",
                    where=path,
                    hint=f"It keeps {known}. `edgeq quantize` takes the file as a float source",
                )

    def load(self, name: str) -> Weight:  # type: ignore[override]
        """A QuantizedTensor where the file has blocks, else float32.

        Raises:
            EdgeqError: no such tensor, or it can't be read.
        """
        if name not in self._tensors:
            raise EdgeqError(f"the model has no tensor {name!r}", where=self.spec.name)
        t, at = self._tensors[name], self._slices[name]
        info = self._file.tensors[at.name]
        if info.type not in GGML_GRIDS:
            return super().load(name)
        rows = math.prod(info.shape[:-1])  # stacked experts: one below the other
        blocks = self._file.raw(at.name).reshape(rows, -1)[at.row_start : at.row_stop]
        q = from_blocks(blocks, info.type, info.shape[-1])
        self._check_finite(q, name)
        return self._unpaired(q, t)

    def load_rows(self, name: str, rows: slice) -> Floats:
        return dense(self.load(name)).reshape(self._tensors[name].shape)[rows]

    def _unpaired(self, q: QuantizedTensor, t: TensorSpec) -> QuantizedTensor:
        """Rows of q and k as a Hugging Face checkpoint has them."""
        part = t.name.rpartition(".")[2]
        if part not in ("q", "k") or not gguf_permuted(self.spec):
            return q
        mixer = self.spec.layers[t.layer or 0].mixer
        assert isinstance(mixer, Attention)
        order: Any = unpermute(np.arange(t.shape[0]), mixer.heads if part == "q" else mixer.kv_heads)  # type: ignore[arg-type]
        parts = q.parameters.rows(order)
        return QuantizedTensor.of(q.grid, q.codes[order], parts)

    def _check_finite(self, q: QuantizedTensor, name: str) -> None:
        floats = (a for a in q.parameters.arrays() if a is not None and a.dtype.kind == "f")
        if not all(np.isfinite(a).all() for a in floats):
            raise EdgeqError(f"a scale of {name} is not finite", where=self.path)


Quantized = QuantizedFolder | QuantizedGguf


def quantization_config(folder: Path) -> Mapping[str, Any] | None:
    """What a folder's `config.json` says of its quantization; None: it has none.

    Raises:
        EdgeqError: the file is damaged.
    """
    config = load_json(folder / "config.json")
    for table in (config, config.get("text_config") if isinstance(config, dict) else None):
        found = table.get("quantization_config") if isinstance(table, dict) else None
        if isinstance(found, dict):
            return found
    return None


def quantized_folder(path: Path) -> bool:
    """This is a folder of a quantized Hugging Face model (no checkpoint of edgeq's)."""
    if not (path / "config.json").is_file() or (path / "manifest.json").is_file():
        return False
    return quantization_config(path) is not None


def open_quantized(ref: str | Path) -> Quantized:
    """A quantized model of another tool's: a folder, a GGUF file or a hub id (downloaded).

    Raises:
        EdgeqError: nothing there, not quantized, or quantized in a way that can't be read.
    """
    path = Path(ref).expanduser()
    if path.suffix.lower() in PICKLES:
        raise EdgeqError("a pickle, which edgeq never loads", where=path, hint=HINT)
    if path.is_file() and path.suffix.lower() == ".gguf":
        return QuantizedGguf(path, read_model(str(path)))
    if path.is_file():
        raise EdgeqError("not a quantized model", where=path, hint="Give a folder or a .gguf file")
    if not path.is_dir():
        if path.suffix.lower() in {".gguf", ".safetensors"} or str(ref).startswith((".", "/", "~")):
            raise EdgeqError("no such file or folder", where=path)
        spec = read_model(str(ref))  # its message, where there is nothing of that name
        if spec.origin == "class":
            raise EdgeqError(f"{str(ref)!r} is a size class, which has no weights", hint="Give a folder or a hub id")
        refuse_estimate(spec)  # before gigabytes are fetched
        from edgeq.model.download import snapshot

        path = snapshot(str(ref))
    return _open_folder(path)


def _open_folder(folder: Path) -> Quantized:
    if (folder / "manifest.json").is_file():
        raise EdgeqError("this is an edgeq checkpoint already", where=folder, hint="`edgeq export` takes it")
    if not (folder / "config.json").is_file():
        ggufs = sorted(folder.glob("*.gguf"))
        if len(ggufs) == 1:
            return QuantizedGguf(ggufs[0], read_model(str(ggufs[0])))
        hint = f"Give one of its {len(ggufs)} .gguf files" if ggufs else HINT
        raise EdgeqError("no config.json in this folder", where=folder, hint=hint)
    config = quantization_config(folder)
    if config is None:
        hint = "`edgeq quantize` and `edgeq export` take it"
        raise EdgeqError("this model is not quantized", where=folder, hint=hint)
    stored = stored_as(config, folder / "config.json")
    open_shards(folder)  # before the architecture, so that a folder with only pickles says so
    spec = read_model(str(folder))
    refuse_estimate(spec)
    return QuantizedFolder(folder, replace(spec, location=str(folder.resolve())), stored)
