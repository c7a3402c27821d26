"""`--device FILE.json`: another machine's profile, and every way it can be wrong."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeq.device import load_device
from edgeq.device.spec import Accelerator, Cache, Cpu, Device, Figure, KernelRate, Memory
from edgeq.errors import EdgeqError
from edgeq.jsonable import to_json

RATE = Figure(20e9, "B/s", "measured", "memchr over 256 MiB", 0.05, "2026-01-31")
MACHINE = Device(
    name="kitchen",
    origin="local",
    os="Linux 6.1",
    cpu=Cpu("4x Cortex-A76", "aarch64", 4, 4, ("neon", "dotprod"), (Cache(2, 1 << 19),), "", RATE),
    memory=Memory(8 << 30, 6 << 30, RATE, ((1, 15e9), (4, 20e9)), limit_bytes=4 << 30),
    accelerators=(Accelerator("npu", "Rockchip NPU", int8_matmul=Figure(6e12, "OP/s", "spec", "data sheet")),),
    kernels=(KernelRate("onnxruntime/cpu", "MatMulNBits-4", RATE),),
    load=0.02,
    warnings=("a note",),
    date="2026-01-31",
)


def test_a_written_profile_reads_back_the_same_but_for_its_origin(tmp_path: Path) -> None:
    path = tmp_path / "kitchen.json"
    path.write_text(json.dumps(to_json(MACHINE)))
    assert load_device(str(path)) == replace(MACHINE, origin="file")


def test_a_file_without_the_usual_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("kitchen").write_text(json.dumps(to_json(MACHINE)))
    assert load_device("kitchen").name == "kitchen"


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.pop("memory"), "lacks 'memory'"),
        (lambda d: d.update(colour="red"), "unknown field 'colour'"),
        (lambda d: d["cpu"].update(cores="four"), "Device.cpu.cores should be int"),
        (lambda d: d["cpu"].update(cores=0), "no processor core"),
        (lambda d: d["memory"].update(total_bytes=-1), "not positive"),
        (lambda d: d["memory"].update(limit_bytes=-5), "not positive"),
        (lambda d: d["memory"].update(available_bytes=1 << 60), "more memory is free"),
        (lambda d: d["memory"]["read_bandwidth"].update(value=0), "not plausible: 0"),
        (lambda d: d["memory"]["read_bandwidth"].update(value=float("nan")), "not plausible: nan"),
        (lambda d: d["cpu"]["fp32_matmul"].update(value=float("inf")), "not plausible: inf"),
        (lambda d: d["kernels"][0]["figure"].update(value=-3.0), "not plausible: -3"),
        (lambda d: d["memory"]["read_bandwidth"].update(basis="guessed"), "expected one of 'measured'"),
        (lambda d: d["accelerators"][0].update(memory_bytes=-1), "negative"),
        (lambda d: d.update(accelerators={}), "should be a list"),
    ],
)
def test_a_wrong_profile_is_one_clear_line(tmp_path: Path, change: Change, said: str) -> None:
    data = copy.deepcopy(to_json(MACHINE))
    change(data)
    path = tmp_path / "kitchen.json"
    path.write_text(json.dumps(data))
    with pytest.raises(EdgeqError, match=said) as error:
        load_device(str(path))
    assert str(path) in error.value.line
    assert "\n" not in error.value.line


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b'{"name": "x"', b"null", b"[]", b'"text"', b"17"]
)
def test_a_file_that_is_no_profile(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "kitchen.json"
    path.write_bytes(content)
    with pytest.raises(EdgeqError):
        load_device(str(path))


def test_missing_file_folder_and_endless_file(tmp_path: Path) -> None:
    with pytest.raises(EdgeqError, match="No such file"):
        load_device(str(tmp_path / "nowhere.json"))
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(EdgeqError, match="directory"):
        load_device(str(tmp_path / "folder.json"))
    large = tmp_path / "large.json"
    with large.open("wb") as stream:
        stream.truncate(1 << 30)
    with pytest.raises(EdgeqError, match="too large"):
        load_device(str(large))
    with pytest.raises(EdgeqError):
        load_device("x" * 5000)
