"""The folder a run works in, `OUT.partial`: locked, never mistaken for a checkpoint, renamed when whole."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgeq.checkpoint.manifest import MANIFEST
from edgeq.checkpoint.store import TOKENIZER
from edgeq.errors import EdgeqError
from edgeq.files import cannot_write
from edgeq.quantize import journal

LOCK = "lock"
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
        if path.name in keep or path.name in {LOCK, journal.NAME}:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def check_room(folder: Path, disk_bytes: int) -> None:
    """Refuse before the first byte what can't end well.

    Raises:
        EdgeqError: the disk has not the room.
    """
    free = shutil.disk_usage(folder).free
    wanted = disk_bytes + SLACK_BYTES
    if free < wanted:
        raise EdgeqError(
            f"not enough room: the checkpoint needs {wanted / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free",
            where=folder.parent,
            hint="Free space or choose another --out",
        )


def finish(folder: Path, out: Path) -> None:
    """Give the whole checkpoint its name; what had the name before goes last."""
    for name in (journal.NAME, LOCK):
        (folder / name).unlink()
    old = out.with_name(out.name + ".old")
    if out.exists():
        out.replace(old)
    folder.replace(out)
    if old.is_dir():
        shutil.rmtree(old)
    else:
        old.unlink(missing_ok=True)


def _ours(name: str) -> bool:
    return name in {LOCK, MANIFEST, TOKENIZER, journal.NAME} or name.endswith((".safetensors", ".partial"))


def _take(descriptor: int, folder: Path) -> None:
    try:
        import fcntl
    except ImportError:  # not a POSIX system: two runs into one folder are the user's to avoid
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise EdgeqError("another run is writing this checkpoint", where=folder, hint="Wait for it") from error
