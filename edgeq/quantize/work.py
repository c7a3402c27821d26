"""The folder a run works in, `OUT.partial`: locked, never mistaken for a checkpoint, renamed when whole."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgeq.amounts import amount
from edgeq.checkpoint.manifest import MANIFEST
from edgeq.checkpoint.store import TOKENIZER
from edgeq.errors import EdgeqError
from edgeq.files import cannot_write
from edgeq.quantize import journal
from edgeq.quantize.report import REPORT

LOCK = "lock"
TEXT = "calibration.json"
GRIDS = "allocation.json"
SCRATCH = "scratch"  # of whatever a step wants to put down; gone with the next step
KEPT = {LOCK, journal.NAME, TEXT, GRIDS}
SLACK_BYTES = 8 << 20  # tokenizer, manifest, file system


@contextmanager
def work_folder(out: Path) -> Iterator[Path]:
    """`OUT.partial`, made or taken up again, for this process alone.

    Raises:
        EdgeqError: another run holds it, it holds files of somebody else's, or it can't be made.
    """
    folder = out.with_name(out.name + ".partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        foreign = [p.name for p in folder.iterdir() if not _ours(p.name)]
        if foreign:
            raise EdgeqError(f"the work folder holds a foreign file: {foreign[0]}", where=folder, hint="Move it away")
        with (folder / LOCK).open("wb") as lock:
            _take(lock.fileno(), folder)
            try:
                yield folder
            finally:
                _drop_if_empty(folder)
    except OSError as error:
        raise cannot_write(folder, error) from error


def _drop_if_empty(folder: Path) -> None:
    """A run that failed before its first shard leaves nothing to take up again."""
    with suppress(OSError):
        if {p.name for p in folder.iterdir()} == {LOCK}:
            (folder / LOCK).unlink()
            folder.rmdir()


def clear(folder: Path, keep: Collection[str]) -> None:
    """Remove what another recipe or a kill left behind."""
    for path in folder.iterdir():
        if path.name not in keep and path.name not in KEPT:
            _remove(path)


def check_room(folder: Path, disk_bytes: int) -> None:
    """Refuse before the first byte what can't end well.

    Raises:
        EdgeqError: the disk has not the room.
    """
    free = shutil.disk_usage(folder).free
    wanted = disk_bytes + SLACK_BYTES
    if free < wanted:
        raise EdgeqError(
            f"not enough room: the checkpoint needs {amount(wanted)}, {amount(free)} are free",
            where=folder.parent,
            hint="Free space or choose another --out",
        )


def finish(folder: Path, out: Path) -> None:
    """Give the whole checkpoint its name; what had the name before goes last.

    What a resume needs goes after the renaming: if that fails, nothing is lost.
    """
    old = out.with_name(out.name + ".old")
    if out.exists():
        out.replace(old)
    try:
        folder.replace(out)
    except OSError:
        if old.exists() and not out.exists():
            old.replace(out)
        raise
    tidy(out)
    if old.exists():
        _remove(old)


def tidy(out: Path) -> bool:
    """Remove from a finished checkpoint what a run needed; whether there was anything, as a kill leaves it."""
    left = [out / name for name in (TEXT, GRIDS, SCRATCH, LOCK, journal.NAME) if (out / name).exists()]
    for path in left:
        _remove(path)
    return bool(left)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _ours(name: str) -> bool:
    known = KEPT | {MANIFEST, REPORT, TOKENIZER, SCRATCH}
    return name in known or name.endswith((".safetensors", ".partial", ".npy"))


def _take(descriptor: int, folder: Path) -> None:
    try:
        import fcntl
    except ImportError:  # not a POSIX system: two runs into one folder are the user's to avoid
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise EdgeqError("another run is writing this checkpoint", where=folder, hint="Wait for it") from error
