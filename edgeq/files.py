"""Writing so that nothing half-written is ever mistaken for a whole: temporary name, fsync, rename."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from edgeq.errors import EdgeqError


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file or leave what was there before.

    Raises:
        EdgeqError: the disk is full or the place can't be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise cannot_write(path, error) from error


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
        raise EdgeqError("the output exists already", where=path, hint="Choose another name or add --force")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield partial
        old = path.with_name(f".{path.name}.{os.getpid()}.old")
        if path.exists():
            path.replace(old)
        partial.replace(path)
        if old.exists():
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
