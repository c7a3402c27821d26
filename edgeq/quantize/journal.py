"""The journal of a run: which shards are whole. What makes `kill -9` and then the same command a resume.

One JSON line a finished shard, appended and synced after the shard has its final name. Every line carries the run's
fingerprint (model, recipe, versions): another run's shards are never taken for this one's.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.artifact import sha256
from edgeq.checkpoint.manifest import FileEntry
from edgeq.errors import EdgeqError
from edgeq.files import cannot_write
from edgeq.jsonable import from_json, to_json

NAME = "journal.jsonl"


@dataclass(frozen=True, slots=True)
class Done:
    """A finished shard: its file, and the relative error of each quantized tensor in it."""

    fingerprint: str
    shard: str
    file: FileEntry
    errors: dict[str, float]


class Journal:
    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.path = folder / NAME
        self.fingerprint = fingerprint
        self.done = {d.shard: d for d in self._read() if d.fingerprint == fingerprint and self._whole(d)}

    def add(self, shard: str, size: int, checksum: str, errors: dict[str, float]) -> None:
        """Note a shard that lies whole under its name.

        Raises:
            EdgeqError: the disk is full.
        """
        done = Done(self.fingerprint, shard, FileEntry(size, checksum), errors)
        try:
            with self.path.open("ab") as stream:
                # After a line cut short by a kill, a new one must not go on in it.
                stream.write(b"\n" + json.dumps(to_json(done)).encode() + b"\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise cannot_write(self.path, error) from error
        self.done[shard] = done

    def _read(self) -> list[Done]:
        try:
            lines = self.path.read_bytes().splitlines()
        except OSError:
            return []
        return [done for line in lines if (done := _line(line)) is not None]

    def _whole(self, done: Done) -> bool:
        file = self.path.parent / done.shard
        return file.is_file() and file.stat().st_size == done.file.bytes and sha256(file) == done.file.sha256


def _line(line: bytes) -> Done | None:
    try:
        data: Any = json.loads(line)
        return from_json(Done, data)
    except (ValueError, RecursionError, EdgeqError):
        return None
