"""The manifest of a checkpoint: what it was made of, how, and what every file should be. Written last."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeq.checkpoint.activation import ActivationGrid
from edgeq.errors import EdgeqError
from edgeq.jsonable import from_json
from edgeq.model.safetensors_file import load_json, short
from edgeq.model.spec import ModelSpec
from edgeq.model.tensors import tensors
from edgeq.scheme import Grid, Scheme

MANIFEST = "manifest.json"
FORMAT = 1
AGAIN = "Make it again with `edgeq quantize`"


@dataclass(frozen=True, slots=True)
class LayerReport:
    """How well a matrix came out, judged on the inputs that calibration text gave it.

    Attributes:
        error_before: relative squared error of the layer's output when each weight is rounded to nearest.
        error_after: of what was stored.
        fallback: why something simpler than the method's answer was stored; None: it was not.
        tokens: of an expert: how many the text gave it; of all a layer's experts: how many all together.
    """

    error_before: float
    error_after: float
    fallback: str | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor lies and how it is stored.

    Attributes:
        shape: as `edgeq.model.tensors` gives it; stacked experts are stored with their rows one below the other.
        error: relative error of the quantized values, ||W - Q|| / ||W|| (Frobenius); None where stored as is.
        report: of a matrix that was quantized with the help of calibration text.
        activation: what a linear layer's input is rounded to; None: it stays float.
    """

    shard: str
    shape: tuple[int, ...]
    grid: Grid
    error: float | None = None
    report: LayerReport | None = None
    activation: ActivationGrid | None = None

    @property
    def matrix(self) -> tuple[int, int]:
        """(rows, columns) of the stored matrix."""
        columns = self.shape[-1]
        rows = 1
        for n in self.shape[:-1]:
            rows *= n
        return rows, columns


@dataclass(frozen=True, slots=True)
class FileEntry:
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything a checkpoint says about itself.

    Attributes:
        recipe: the recipe's fields.
        source: `name` of the source, and `sha256` of its files by name.
        files: relative name -> size and checksum, the manifest itself left out.
        calibration: the text that the method learned from, as its reader describes it; None: there was none.
    """

    recipe: dict[str, Any]
    scheme: Scheme
    spec: ModelSpec
    source: dict[str, Any]
    versions: dict[str, str]
    tensors: dict[str, StoredTensor]
    files: dict[str, FileEntry]
    edgeq_checkpoint: int = field(default=FORMAT)
    calibration: dict[str, Any] | None = None


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest against the sizes of the files it names.

    Raises:
        EdgeqError: no folder, no manifest, a damaged or newer one, a file missing or of another size.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise EdgeqError("no such checkpoint folder", where=folder, hint="Make one with `edgeq quantize`")
    if not path.is_file():
        raise EdgeqError("not a checkpoint: it holds no manifest", where=folder, hint="Make one with `edgeq quantize`")
    try:
        data = load_json(path.read_bytes(), path)
    except OSError as error:
        raise EdgeqError(f"cannot read the manifest: {error.strerror}", where=path) from error
    except EdgeqError as error:
        raise EdgeqError("the checkpoint's manifest is damaged", where=path, hint=AGAIN) from error
    if isinstance(data, dict) and data.get("edgeq_checkpoint", FORMAT) != FORMAT:
        raise EdgeqError(f"checkpoint format {data['edgeq_checkpoint']!r} is not known here", where=path)
    manifest = from_json(Manifest, data, path)
    _check_tensors(manifest, path)
    for name, entry in manifest.files.items():
        check_file(folder, name, entry)
    return manifest


def _check_tensors(manifest: Manifest, where: Path) -> None:
    """The tensors are those that the model of the manifest has, in its shapes."""
    needed = {t.name: t.shape for t in tensors(manifest.spec)}
    for name in sorted(needed.keys() ^ manifest.tensors.keys()):
        what = "lacks" if name in needed else "has a foreign"
        raise EdgeqError(
            f"the checkpoint's manifest is damaged: it {what} tensor {short(name)}", where=where, hint=AGAIN
        )
    for name, stored in manifest.tensors.items():
        if stored.shape != needed[name]:
            sizes = f"shape {list(stored.shape)}, its model needs {list(needed[name])}"
            raise EdgeqError(f"the checkpoint's manifest is damaged: {name} has {sizes}", where=where, hint=AGAIN)


def check_file(folder: Path, name: str, entry: FileEntry) -> None:
    """The file is there with its size (its checksum costs a read: `Checkpoint` takes it when it opens a shard)."""
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise EdgeqError(f"the manifest names a file outside the checkpoint: {name!r}", where=folder, hint=AGAIN)
    if not path.is_file():
        raise EdgeqError("a file of the checkpoint is missing", where=path, hint=AGAIN)
    if path.stat().st_size != entry.bytes:
        raise EdgeqError("a file of the checkpoint is truncated or was changed", where=path, hint=AGAIN)
