"""Artifact: a folder that a runtime loads, with a manifest (`edgeq.json`) and checksums.

The manifest is written last, after every file it names is complete and named for good: a folder without a readable
manifest is not an artifact, however much of it is there.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeq.errors import EdgeqError
from edgeq.jsonable import from_json

MANIFEST = "edgeq.json"
FORMAT = 1
COUNTS = ("vocab_size", "hidden_size", "layers", "heads", "kv_heads", "head_dim", "max_positions")
DAMAGED = "the artifact's manifest is damaged"
AGAIN = "Export it again"


@dataclass(frozen=True, slots=True)
class Artifact:
    """What a runtime needs to know about an exported folder.

    Attributes:
        runtime: name of the runtime that opens it (`onnxruntime`).
        model: shape facts the session needs: `vocab_size`, `hidden_size`, `layers`, `kv_heads`, `head_dim`,
            `max_positions`, `bos_id`, `eos_ids`, `pad_id`, `family`.
        scheme: the scheme's name.
        plan: what the plan promised, for the bench to print beside the facts (may be empty).
        checkpoint: path of the neutral checkpoint it was exported from, for `edgeq verify`.
        files: name, relative or of a file that lies elsewhere, -> {"bytes": n, "sha256": hex}.
        notes: what its user should know, a sentence each.
    """

    path: Path
    runtime: str
    name: str
    scheme: str
    model: dict[str, Any]
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    checkpoint: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    verify: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def total_bytes(self) -> int:
        return sum(int(f["bytes"]) for f in self.files.values())

    def to_json(self) -> dict[str, Any]:
        names = ("runtime", "name", "scheme", "model", "files", "plan", "checkpoint", "versions", "options", "verify")
        told = {"notes": self.notes} if self.notes else {}
        return {"edgeq_artifact": FORMAT, **{n: getattr(self, n) for n in names}, **told}


def read_artifact(path: str | Path) -> Artifact:
    """Read the manifest and check that every file it names is there with the size it had.

    A single file that an exporter knows (a GGUF) is described as an artifact first.

    Raises:
        EdgeqError: no such folder, no manifest, an unreadable or newer one, a missing or truncated file.
    """
    folder = Path(path)
    if folder.is_file():
        from edgeq.registry import adopted

        return adopted(folder)
    file = folder / MANIFEST
    if not folder.is_dir():
        raise EdgeqError("no such artifact folder", where=folder, hint="Make one with `edgeq export`")
    if not file.is_file():
        raise EdgeqError(f"this folder holds no {MANIFEST}", where=folder, hint="Make an artifact with `edgeq export`")
    try:
        raw = json.loads(file.read_text("utf-8"))
        version = raw.pop("edgeq_artifact")
        if version != FORMAT:
            raise EdgeqError(f"artifact format {version!r} is not known here", where=file, hint="Update edgeq")
        artifact = from_json(Artifact, {**raw, "path": folder}, file)
        _check_facts(artifact.model)
        sizes = {name: int(entry["bytes"]) for name, entry in artifact.files.items()}
    except PermissionError as error:
        raise EdgeqError("cannot read the artifact's manifest: no permission", where=file) from error
    except EdgeqError as error:
        if isinstance(error.__cause__, (TypeError, ValueError)):  # of from_json
            raise EdgeqError(f"{DAMAGED}: {error.__cause__}", where=file, hint=AGAIN) from error
        raise
    except ValueError as error:
        raise EdgeqError(f"{DAMAGED}: {error}", where=file, hint=AGAIN) from error
    except (OSError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise EdgeqError(DAMAGED, where=file, hint=AGAIN) from error
    for name, size in sizes.items():
        part = folder / name
        if not part.is_file() or part.stat().st_size != size:
            raise EdgeqError("a file of the artifact is missing or truncated", where=part, hint=AGAIN)
    return artifact


def check_sums(artifact: Artifact) -> None:
    """Read every file of an artifact and compare it with the checksum in the manifest.

    Raises:
        EdgeqError: naming the first file that is not as it was exported.
    """
    for name, entry in artifact.files.items():
        part = artifact.path / name
        try:
            same = entry.get("sha256") in (None, sha256(part))
        except OSError as error:
            raise EdgeqError(f"cannot read the file: {error.strerror}", where=part) from error
        if not same:
            raise EdgeqError("a file of the artifact is damaged (its checksum differs)", where=part, hint=AGAIN)


def _check_facts(model: dict[str, Any]) -> None:
    """The known shape facts have the types that sessions and measurements rely on; raises ValueError."""
    for name in COUNTS:
        value = model.get(name, 1)
        if not _whole(value) or value < 1:
            raise ValueError(f"{name} is {value!r}")
    ends = model.get("eos_ids", [])
    if not isinstance(ends, list) or not all(map(_whole, ends)):
        raise ValueError(f"eos_ids is {ends!r}")


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Sizes and checksums of every file below `folder`, the manifest itself left out."""
    found = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    return {p.relative_to(folder).as_posix(): {"bytes": p.stat().st_size, "sha256": sha256(p)} for p in found}
