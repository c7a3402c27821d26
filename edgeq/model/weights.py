"""Source models as `Weights`: tensors by canonical name, read on demand from safetensors or GGUF."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeq.errors import EdgeqError
from edgeq.model.experts import ExpertFiles, expert_slices
from edgeq.model.gguf_file import GgufFile
from edgeq.model.names import HfSlice, gguf_permuted, gguf_slices, hf_names, hf_prefix
from edgeq.model.read import read_model
from edgeq.model.safetensors_file import CONVERT, open_shards
from edgeq.model.spec import Attention, ModelSpec, refuse_estimate
from edgeq.model.tensors import TensorSpec, tensors

Floats = npt.NDArray[np.float32]
PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
ROW_ROLES = {"embed", "head", "experts_gate", "experts_up", "experts_down"}  # large, and no format reorders their rows
OTHER_MODEL = "The weights and the configuration are not of the same model"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
)


class SourceWeights(ABC):
    """A float model on disk. Subclasses say where a tensor lies and how to read its rows.

    Attributes:
        files: the files that hold the weights.
    """

    files: tuple[Path, ...]

    def __init__(self, spec: ModelSpec, slices: dict[str, HfSlice]) -> None:
        self.spec = spec
        self._slices = slices
        self._tensors = {t.name: t for t in tensors(spec)}
        for t in self._tensors.values():
            self._check(t)

    def names(self) -> Sequence[str]:
        return tuple(self._tensors)

    def load(self, name: str) -> Floats:
        """float32, in the shape that `edgeq.model.tensors` gives.

        Raises:
            EdgeqError: no such tensor, or it can't be read.
        """
        if name not in self._tensors:
            raise EdgeqError(f"the model has no tensor {name!r}", where=self.spec.name)
        t, at = self._tensors[name], self._slices[name]
        rows = None if at.row_start is None else slice(at.row_start, at.row_stop)
        return self._restored(t, self._read(at.name, rows).reshape(t.shape))

    def load_rows(self, name: str, rows: slice) -> Floats:
        """`load(name)[rows]`, read without the rest wherever the file's rows are the tensor's."""
        t, at = self._tensors[name], self._slices[name]
        if len(t.shape) < 2 or self._stored_shape(at.name) != t.shape or t.role not in ROW_ROLES:
            return self.load(name)[rows]
        return self._restored(t, self._read(at.name, rows).reshape(-1, *t.shape[1:]))

    @abstractmethod
    def tokenizer_files(self) -> dict[str, Path | bytes]: ...

    @abstractmethod
    def _stored_shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of a tensor of the file, None where there is none."""

    @abstractmethod
    def _read(self, name: str, rows: slice | None) -> Floats: ...

    def _restored(self, t: TensorSpec, values: Floats) -> Floats:
        """Undo what the file format did to the values."""
        return values

    def _check(self, t: TensorSpec) -> None:
        at = self._slices[t.name]
        shape = self._stored_shape(at.name)
        if shape is None:
            raise self._missing(at.name)
        here = _rows_taken(shape, at)
        if here is None or _squeezed(here) != _squeezed(t.shape):
            raise EdgeqError(
                f"tensor {at.name} has shape {list(shape)}, the configuration needs {list(t.shape)} for {t.name}",
                where=self.spec.location,
                hint=OTHER_MODEL,
            )

    def _missing(self, name: str) -> EdgeqError:
        return EdgeqError(f"the model lacks the tensor {name}", where=self.spec.location, hint="Fetch it again")


class FolderWeights(SourceWeights):
    """A Hugging Face folder: `config.json` and one or more safetensors files."""

    def __init__(self, folder: Path, spec: ModelSpec) -> None:
        self.folder = folder
        self._shards = open_shards(folder)
        self.files = tuple(sorted({f.path for f in self._shards.values()}))
        slices = hf_names(spec, self._shards)
        self._experts = ExpertFiles(self._shards, expert_slices(spec, self._shards, hf_prefix(self._shards)))
        super().__init__(spec, slices)

    def load(self, name: str) -> Floats:
        if name in self._experts.slices:
            return self._experts.read(self._tensors[name], slice(None))
        return super().load(name)

    def load_rows(self, name: str, rows: slice) -> Floats:
        if name in self._experts.slices:
            return self._experts.read(self._tensors[name], rows)
        return super().load_rows(name, rows)

    def _check(self, t: TensorSpec) -> None:
        if t.name not in self._experts.slices:
            super()._check(t)
            return
        try:
            wrong = self._experts.check(t)
        except KeyError as missing:
            raise self._missing(missing.args[0]) from missing
        if wrong is not None:
            raise EdgeqError(wrong, where=self.spec.location, hint=OTHER_MODEL)

    def tokenizer_files(self) -> dict[str, Path | bytes]:
        """The tokenizer, chat template and generation settings that lie in the folder, by file name.

        Raises:
            EdgeqError: one of them is damaged or can't be read.
        """
        found: dict[str, Path | bytes] = {}
        for path in (self.folder / n for n in TOKENIZER_FILES):
            if path.is_file():
                _check_text(path)
                found[path.name] = path
        return found

    def _stored_shape(self, name: str) -> tuple[int, ...] | None:
        file = self._shards.get(name)
        return None if file is None else file.tensors[name].shape

    def _read(self, name: str, rows: slice | None) -> Floats:
        info = self._shards[name].tensors[name]
        if f"{name}_scale_inv" in self._shards or f"{name}_scale" in self._shards:
            raise self._quantized_already(name, info.dtype)
        return self._shards[name].read(name, rows)

    def _missing(self, name: str) -> EdgeqError:
        stem = name.removesuffix("weight")
        for packed in ("qweight", "weight_packed", "weight.absmax"):
            if stem + packed in self._shards:
                return self._quantized_already(name, packed)
        return super()._missing(name)

    def _quantized_already(self, name: str, how: str) -> EdgeqError:
        return EdgeqError(
            f"this model is quantized already ({name} as {how})",
            where=self.folder,
            hint="Start from its float original, or take it as it is: `edgeq convert`",
        )


class GgufWeights(SourceWeights):
    """A GGUF file, its tensors dequantized and its values as a Hugging Face checkpoint has them."""

    def __init__(self, path: Path, spec: ModelSpec) -> None:
        self.path = path
        self._file = GgufFile.open(path)
        if int(self._file.metadata.get("split.count", 0)) > 1:
            raise EdgeqError("one part of a split GGUF", where=path, hint="Join it: llama-gguf-split --merge")
        self.files = (path,)
        super().__init__(spec, gguf_slices(spec))

    def tokenizer_files(self) -> dict[str, Path | bytes]:
        """The tokenizer files, built from the file's metadata."""
        from edgeq.model.gguf_tokenizer import tokenizer_files

        return {**tokenizer_files(self._file)}

    def _stored_shape(self, name: str) -> tuple[int, ...] | None:
        found = self._file.tensors.get(name)
        return None if found is None else found.shape

    def _read(self, name: str, rows: slice | None) -> Floats:
        return self._file.read(name, rows)

    def _restored(self, t: TensorSpec, values: Floats) -> Floats:
        # llama.cpp's converter stores Gemma's norms with the one added that the model adds at run time.
        if t.role == "norm" and self.spec.norm_offset:
            return values - np.float32(self.spec.norm_offset)
        part = t.name.rpartition(".")[2]
        if part in {"q", "k", "q_bias", "k_bias"} and gguf_permuted(self.spec):
            mixer = self.spec.layers[t.layer or 0].mixer
            if isinstance(mixer, Attention):
                return unpermute(values, mixer.heads if part[0] == "q" else mixer.kv_heads)
        return values


def _check_text(path: Path) -> None:
    """A tokenizer's file can be read, and is a JSON object where its name says so."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EdgeqError(f"cannot read the file: {error.strerror}", where=path) from error
    try:
        good = path.suffix != ".json" or isinstance(json.loads(content), dict)
        content.decode("utf-8")
    except (ValueError, RecursionError):
        good = False
    if not good:
        raise EdgeqError("a file of the tokenizer is damaged", where=path, hint="Fetch it again")


def unpermute(values: Floats, heads: int) -> Floats:
    """Undo llama.cpp's reordering of the rows of q and k: each head's (head_dim/2, 2) rows back to (2, head_dim/2).

    Rotary embedding pairs rows i and i + head_dim/2 here, neighbouring rows there.
    """
    rows = values.shape[0]
    split = values.reshape(heads, rows // heads // 2, 2, *values.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(values.shape)


def open_source(ref: str | Path, spec: ModelSpec | None = None) -> SourceWeights:
    """The weights of a folder, a GGUF file or a hub id (downloaded), read on demand.

    Args:
        ref: as the user typed it.
        spec: its architecture, when it is known already.

    Raises:
        EdgeqError: nothing there, only pickles, a size class (which has no weights), an architecture edgeq does not
            know, no network, or the files contradict the configuration.
    """
    path = Path(ref).expanduser()
    if path.suffix.lower() in PICKLES:
        raise EdgeqError("a pickle, which edgeq never loads", where=path, hint=CONVERT)
    if path.is_file():
        return _open_file(path, spec)
    if path.is_dir():
        return _open_folder(path, spec)
    if path.suffix.lower() in {".gguf", ".safetensors"} or str(ref).startswith((".", "/", "~")):
        raise EdgeqError("no such file or folder", where=path)
    spec = spec or read_model(str(ref))
    if spec.origin == "class":
        raise EdgeqError(
            f"{str(ref)!r} is a size class, which has no weights", hint="Give a folder, a .gguf file or a hub id"
        )
    refuse_estimate(spec)  # before gigabytes are fetched
    from edgeq.model.download import snapshot

    folder = snapshot(str(ref))
    return FolderWeights(folder, replace(spec, location=str(folder)))


def _open_file(path: Path, spec: ModelSpec | None) -> SourceWeights:
    if path.suffix.lower() == ".gguf":
        return GgufWeights(path, spec or read_model(str(path)))
    if path.suffix.lower() == ".safetensors" or path.name == "config.json":
        return _open_folder(path.parent, spec)
    raise EdgeqError("not a model file", where=path, hint="Give a folder with safetensors, or a .gguf file")


def _open_folder(folder: Path, spec: ModelSpec | None) -> SourceWeights:
    if (folder / "manifest.json").is_file():
        raise EdgeqError("this is a quantized checkpoint, not a source", where=folder, hint="`edgeq export` takes it")
    if not (folder / "config.json").is_file() and spec is None:
        ggufs = sorted(folder.glob("*.gguf"))
        hint = f"Did you mean {ggufs[0]}?" if ggufs else "Give the folder that holds config.json and safetensors files"
        raise EdgeqError("no config.json in this folder", where=folder, hint=hint)
    # Before the configuration, so that a folder with only pickles says so.
    open_shards(folder)
    spec = spec or read_model(str(folder))
    refuse_estimate(spec)  # before a tensor is missed that was only guessed
    return FolderWeights(folder, spec)


def _rows_taken(shape: tuple[int, ...], at: HfSlice) -> tuple[int, ...] | None:
    """The shape of the slice, None when it passes the tensor's end."""
    if at.row_start is None or at.row_stop is None:
        return shape
    if not shape or at.row_stop > shape[0]:
        return None
    return (at.row_stop - at.row_start, *shape[1:])


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without dimensions of one: files disagree on them (a convolution's middle one, a scalar's)."""
    return tuple(n for n in shape if n != 1)
