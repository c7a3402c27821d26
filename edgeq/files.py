"""Writing so that nothing half-written is ever mistaken for a whole: temporary name, fsync, rename."""

from __future__ import annotations

import glob
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from edgeq.errors import EdgeqError


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A stream to write; the file takes its name when the block ends, or what was there before stays.

    Raises:
        EdgeqError: the disk is full or the place can't be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:  # after an interrupt too; a file that took its name is no longer here
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file or leave what was there before. Raises as `whole_file` does."""
    with whole_file(path) as stream:
        stream.write(data)


def write_json(path: Path, value: Any) -> None:
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def cannot_write(path: Path, error: OSError) -> EdgeqError:
    return EdgeqError(f"cannot write: {error.strerror or error}", where=path, hint="Free space or choose another --out")


@contextmanager
def new_folder(path: Path, *, force: bool = False) -> Iterator[Path]:
    """A folder to fill; it takes its final name only when the block ends without an error.

    Raises:
        EdgeqError: `path` exists (unless `force`, which replaces it only when the new one is whole), or can't be made.
    """
    if path.exists() and not force:
        raise _exists(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        _sweep(path)
        partial.mkdir(parents=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield partial
        old = path.with_name(f".{path.name}.{os.getpid()}.old")
        if path.exists():
            if not force:  # another process was faster
                raise _exists(path)
            path.replace(old)
        partial.replace(path)
        if old.exists():
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _exists(path: Path) -> EdgeqError:
    return EdgeqError("the output exists already", where=path, hint="Choose another name or add --force")


def _sweep(path: Path) -> None:
    """Remove what killed processes left of this folder; those of living ones stay."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        pid = left.name.rpartition(".partial")[0].rpartition(".")[2]
        if pid.isdecimal() and not _alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)


def _alive(pid: int) -> bool:
    if sys.platform == "win32":
        return True  # there, asking would end the process
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
