"""The journal of a run: which shards are whole. What makes `kill -9` and then the same command a resume.

One JSON line a finished shard, appended and synced after the shard has its final name, and with it whatever else the
step wrote (hidden states): a line commits all of them at once. Every line carries the run's fingerprint (model,
recipe, calibration, versions): another run's shards are never taken for this one's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeq.artifact import sha256
from edgeq.checkpoint.activation import ActivationGrid
from edgeq.checkpoint.manifest import FileEntry, LayerReport
from edgeq.errors import EdgeqError
from edgeq.files import cannot_write
from edgeq.jsonable import from_json, to_json

NAME = "journal.jsonl"


@dataclass(frozen=True, slots=True)
class Done:
    """A finished shard.

    Attributes:
        errors: the relative error of each quantized tensor in it.
        hidden: files of hidden states that were written with it: what the next block reads.
        activations: what the input of each matrix is rounded to, where it has a grid that was found with the text.
        reports, seconds: of each matrix that was quantized by its statistics.
        block: mean squared error of the block's output: `before` and `after` its refinement.
        step_seconds: what the step took in all.
    """

    fingerprint: str
    shard: str
    file: FileEntry
    errors: dict[str, float]
    hidden: dict[str, FileEntry] = field(default_factory=dict)
    reports: dict[str, LayerReport] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    activations: dict[str, ActivationGrid] = field(default_factory=dict)
    block: dict[str, float] = field(default_factory=dict)
    step_seconds: float = 0.0


class Journal:
    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.path = folder / NAME
        self.fingerprint = fingerprint
        self.done = {d.shard: d for d in lines(self.path) if d.fingerprint == fingerprint and self._whole(d)}

    @property
    def folder(self) -> Path:
        return self.path.parent

    def files(self) -> set[str]:
        """Every file that a line of the journal commits."""
        return {name for d in self.done.values() for name in (d.shard, *d.hidden)}

    def add(self, shard: str, size: int, checksum: str, errors: dict[str, float], **more: Any) -> Done:
        """Note a shard that lies whole under its name.

        Args:
            more: the other fields of `Done`.

        Raises:
            EdgeqError: the disk is full.
        """
        done = Done(self.fingerprint, shard, FileEntry(size, checksum), errors, **more)
        try:
            with self.path.open("ab") as stream:
                # After a line cut short by a kill, a new one must not go on in it.
                stream.write(b"\n" + json.dumps(to_json(done)).encode() + b"\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise cannot_write(self.path, error) from error
        self.done[shard] = done
        return done

    def drop(self, shards: Iterable[str]) -> None:
        """Take these as not done."""
        for shard in shards:
            self.done.pop(shard, None)

    def _whole(self, done: Done) -> bool:
        file = self.path.parent / done.shard
        return file.is_file() and file.stat().st_size == done.file.bytes and sha256(file) == done.file.sha256


def lines(path: Path) -> list[Done]:
    """What a journal says, of whatever runs; lines that a kill cut short are skipped."""
    try:
        found = path.read_bytes().splitlines()
    except OSError:
        return []
    return [done for line in found if (done := _line(line)) is not None]


def _line(line: bytes) -> Done | None:
    try:
        data: Any = json.loads(line)
        return from_json(Done, data)
    except (ValueError, RecursionError, EdgeqError):
        return None
