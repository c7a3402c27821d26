"""Models on this machine: what is taken for one, what is not, and places that can't be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeq.model import found as module
from edgeq.model.found import Found, cached, find_models


def folder(path: Path, weights: int = 10) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(bytes(weights))
    return path


def names(*places: Path, cache: Path = Path("/nowhere")) -> list[str]:
    return [one.name for one in find_models(places, cache=cache)]


def test_folders_and_files_the_nearest_first(tmp_path: Path) -> None:
    deep = folder(tmp_path / "a" / "deep")
    near = folder(tmp_path / "near", 3)
    (tmp_path / "some.GGUF").write_bytes(b"1234")
    found = find_models([tmp_path], cache=tmp_path / "none")
    assert found == [
        Found(str(tmp_path / "some.GGUF"), "some.GGUF", "gguf", 4),
        Found(str(near), "near", "folder", 3),
        Found(str(deep), "deep", "folder", 10),
    ]


def test_a_place_may_be_a_model_itself_and_lie_in_another(tmp_path: Path) -> None:
    model = folder(tmp_path / "m")
    assert names(model, tmp_path, tmp_path / "missing") == ["m"]


def test_what_is_no_source_is_left_out(tmp_path: Path) -> None:
    for name in (".hidden", "node_modules"):
        folder(tmp_path / name / "m")
    (folder(tmp_path / "checkpoint") / "manifest.json").write_text("{}")
    (folder(tmp_path / "artifact") / "edgeq.json").write_text("{}")
    (tmp_path / "config-alone").mkdir()
    (tmp_path / "config-alone" / "config.json").write_text("{}")
    for name in ("mmproj-x.gguf", "big-00002-of-00003.gguf", "big-00001-of-00003.gguf"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert names(tmp_path) == ["big-00001-of-00003.gguf"]


def test_it_looks_only_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path / "1" / "2" / "3" / "4" / "5" / "m")
    assert names(tmp_path) == []
    folder(tmp_path / "z")
    monkeypatch.setattr(module, "FOLDERS", 1)
    assert names(tmp_path) == []


def test_the_hub_s_cache(tmp_path: Path) -> None:
    folder(tmp_path / "models--org--tiny" / "snapshots" / "abc", 7)
    (tmp_path / "models--org--config-only" / "snapshots" / "abc").mkdir(parents=True)
    (tmp_path / "models--org--config-only" / "snapshots" / "abc" / "config.json").write_text("{}")
    (tmp_path / "datasets--org--d").mkdir()
    assert list(cached(tmp_path)) == [Found("org/tiny", "org/tiny", "cached", 7)]
    assert names(cache=tmp_path) == ["org/tiny"]
