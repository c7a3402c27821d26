"""Models on this machine: folders and GGUF files under some places, and what the hub's cache holds."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

MOST = 200  # models that are listed
FOLDERS = 4000  # that are looked into at most: a home can hold millions
DEPTH = 4  # folders below a place
_SKIPPED = {"node_modules", "__pycache__", "site-packages", "venv", "env", "proc", "sys", "dev"}
# What edgeq itself made is no source: a checkpoint's and an artifact's manifest.
_OURS = ("manifest.json", "edgeq.json")


@dataclass(frozen=True, slots=True)
class Found:
    """Attributes:
    ref: what `read_model` takes.
    name: its folder's, file's or repository's.
    n_bytes: of its weights' files.
    """

    ref: str
    name: str
    kind: Literal["folder", "gguf", "cached"]
    n_bytes: int


def find_models(places: Iterable[Path], *, cache: Path | None = None) -> list[Found]:
    """The models under `places`, the nearest first, then those of the hub's cache. Nothing is opened.

    Args:
        cache: of the hub; None: where huggingface_hub has it.
    """
    found: dict[str, Found] = {}
    for place in places:
        for one in islice(_under(place), MOST):
            found.setdefault(one.ref, one)
    for one in cached(hub_cache() if cache is None else cache):
        found.setdefault(one.ref, one)
    return list(found.values())[:MOST]


def hub_cache() -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def cached(cache: Path) -> Iterator[Found]:
    """Hub models whose weights are in the cache, by name."""
    for folder in sorted(_listed(cache)):
        kind, _, name = folder.name.partition("--")
        if kind != "models":
            continue
        sizes = [_weights(snapshot) for snapshot in _listed(folder / "snapshots")]
        if any(sizes):
            ref = name.replace("--", "/")
            yield Found(ref, ref, "cached", max(sizes))


def _under(place: Path) -> Iterator[Found]:
    """Breadth first, so that a deep tree hides nothing near."""
    waiting: deque[tuple[Path, int]] = deque([(place.expanduser().absolute(), 0)])
    looked = 0
    while waiting and looked < FOLDERS:
        folder, depth = waiting.popleft()
        looked += 1
        inside = sorted(_listed(folder))
        names = {path.name for path in inside}
        if names.intersection(_OURS):
            continue
        if "config.json" in names and any(name.endswith(".safetensors") for name in names):
            yield Found(str(folder), folder.name, "folder", _weights(folder))
            continue
        yield from (Found(str(p), p.name, "gguf", _size(p)) for p in inside if _is_gguf(p))
        if depth < DEPTH:
            waiting += [(path, depth + 1) for path in inside if _enter(path)]


def _is_gguf(path: Path) -> bool:
    """A whole model: of one in parts the first alone, and no projector of images."""
    name = path.name.lower()
    if not name.endswith(".gguf") or name.startswith("mmproj"):
        return False
    return "-of-" not in name or "-00001-of-" in name


def _enter(path: Path) -> bool:
    if path.name.startswith((".", "$")) or path.name in _SKIPPED:
        return False
    try:
        return path.is_dir() and not path.is_symlink()
    except OSError:
        return False


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # gone, no permission, no folder
        return []


def _weights(folder: Path) -> int:
    """Bytes of a folder's safetensors, where it has a config too."""
    files = _listed(folder)
    if not any(path.name == "config.json" for path in files):
        return 0
    return sum(_size(path) for path in files if path.name.endswith(".safetensors"))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
