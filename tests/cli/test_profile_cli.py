"""`edgeq profile` as a person sees it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeq.cli.main import main
from edgeq.device import load_device
from edgeq.device.spec import Cache, Cpu, Figure
from edgeq.device.words import binary, caches, quantity
from edgeq.estimate.meaning import bandwidth_meaning


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["profile", *arguments])
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_the_report_of_a_catalog_device(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--device", "rtx-4090")
    assert code == 0
    for part in ("NVIDIA GeForce RTX 4090", "24 GiB", "1008 GB/s", "compute capability 8.9", "at most 252 tokens/s"):
        assert part in " ".join(out.split())
    assert max(len(line) for line in out.splitlines()) <= 80


def test_the_json_is_a_device_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = run(capsys, "--device", "rpi-5", "--json")
    assert code == 0
    path = tmp_path / "pi.json"
    path.write_text(out)
    code, again, _ = run(capsys, "--device", str(path), "--json")
    assert json.loads(again) == json.loads(out) | {"origin": "file"}
    assert load_device(str(path)).name == "Raspberry Pi 5"


def test_the_list_names_every_device(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "--list")
    _, listed, _ = run(capsys, "--list", "--json")
    names = json.loads(listed)
    assert len(names) >= 40
    assert all(name in out for name in names)


@pytest.mark.parametrize("reference", ["rtx-409", "nowhere.json"])
def test_bad_references_are_one_line(capsys: pytest.CaptureFixture[str], reference: str) -> None:
    code, out, err = run(capsys, "--device", reference)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_what_the_numbers_mean() -> None:
    said = bandwidth_meaning(load_device("rpi-5"))
    assert said is not None
    assert "4.3 times a second: at most 4.3 tokens/s" in said


def test_units() -> None:
    assert quantity(Figure(31.02e9, "B/s", "measured")) == "31.0 GB/s"
    assert quantity(Figure(1792e9, "B/s", "spec")) == "1792 GB/s"
    assert quantity(Figure(989e12, "FLOP/s", "spec")) == "989 TFLOP/s"
    assert quantity(Figure(12.0, "B/s", "spec")) == "12 B/s"
    assert quantity(Figure(49.7e9, "weights/s", "measured")) == "49.7 G weights/s"
    assert [quantity(Figure(t, "s", "measured")) for t in (7.11e-6, 0.0123)] == ["7.11 µs", "12.3 ms"]
    assert [binary(n) for n in (512, 48 << 10, 3 << 19, 25276510208)] == ["512 B", "48 KiB", "1.5 MiB", "23.5 GiB"]
    cpu = Cpu("x", "x86_64", 2, 2, caches=(Cache(1, 32768), Cache(1, 32768), Cache(3, 32 << 20, 2)))
    assert caches(cpu) == "L1 2 x 32 KiB, L3 32 MiB"
