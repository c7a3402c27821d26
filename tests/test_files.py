"""A half-written file or folder is never seen under its final name, and nothing that was there is lost."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeq.artifact import MANIFEST, Artifact, describe_files, read_artifact
from edgeq.errors import EdgeqError
from edgeq.files import new_folder, write_bytes, write_json


def full_disk(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.json"
    write_json(file, {"old": True})
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(EdgeqError, match="No space left"):
        write_bytes(file, b"new")
    assert "old" in file.read_text()
    assert listed(tmp_path) == ["a.json"]


def test_a_failing_block_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "out") as folder:
        (folder / "part").write_text("half")
        raise ZeroDivisionError
    assert listed(tmp_path) == []


def test_an_existing_folder_is_refused_and_force_replaces_it_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with new_folder(out) as folder:
        (folder / "one").write_text("1")
    with pytest.raises(EdgeqError, match="exists"), new_folder(out):
        pass
    with pytest.raises(RuntimeError), new_folder(out, force=True):
        raise RuntimeError
    assert listed(out) == ["one"]
    with new_folder(out, force=True) as folder:
        (folder / "two").write_text("2")
    assert listed(out) == ["two"]
    assert listed(tmp_path) == ["out"]


def listed(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def artifact(folder: Path) -> Path:
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"x" * 100)
    made = Artifact(folder, "onnxruntime", "m", "s", {"vocab_size": 8}, describe_files(folder))
    write_json(folder / MANIFEST, made.to_json())
    return folder


def test_an_artifact_reads_back(tmp_path: Path) -> None:
    made = read_artifact(artifact(tmp_path / "a"))
    assert (made.runtime, made.total_bytes) == ("onnxruntime", 100)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", '{"edgeq_artifact": 99}', '{"edgeq_artifact": 1, "files": 3}', "[" * 100_000]
)
def test_a_damaged_manifest_is_one_clear_error(tmp_path: Path, text: str) -> None:
    folder = artifact(tmp_path / "a")
    (folder / MANIFEST).write_text(text)
    with pytest.raises(EdgeqError):
        read_artifact(folder)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    folder = artifact(tmp_path / "a")
    (folder / "model.onnx").write_bytes(b"x")
    with pytest.raises(EdgeqError, match=r"model\.onnx"):
        read_artifact(folder)


def test_another_process_that_was_faster_keeps_its_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(EdgeqError, match="exists"), new_folder(out) as mine:
        (mine / "a").write_text("mine")
        out.mkdir()
        (out / "a").write_text("theirs")
    assert (out / "a").read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.skipif(sys.platform == "win32", reason="there, nobody can ask whether a process lives")
def test_what_a_killed_process_left_is_removed_and_a_living_ones_stays(tmp_path: Path) -> None:
    dead = tmp_path / f".out.{2**22 + 1}.partial"  # above the largest process id
    living = tmp_path / f".out.{os.getppid()}.partial"
    for left in (dead, living):
        left.mkdir()
    with new_folder(tmp_path / "out"):
        pass
    assert sorted(tmp_path.iterdir()) == sorted([living, tmp_path / "out"])
