"""The doctor reads what is installed without importing it, and names the line that brings what is missing."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from edgeq import doctor
from edgeq.cli.doctor_ import render
from edgeq.doctor import Package, Wanted, examine

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a distribution's metadata (and, when asked, its module) in front of sys.path."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def put(name: str, version: str, *requires: str, module: str | None = None) -> None:
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        lines += [f"Requires-Dist: {r}" for r in requires]
        (info / "METADATA").write_text("\n".join(lines) + "\n", "utf-8")
        if module:
            (site / f"{module}.py").write_text("raise SystemExit('the doctor imported me')", "utf-8")

    return put


def look(monkeypatch: pytest.MonkeyPatch, *wanted: Wanted) -> tuple[Package, ...]:
    monkeypatch.setattr(doctor, "PACKAGES", wanted)
    return examine().packages


def test_a_missing_package_says_what_it_would_give_and_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = Wanted("no-such-thing-a", "no_such_thing_a", "onnx", "exporting")
    alone = Wanted("no-such-thing-b", "no_such_thing_b", None, "comparing")
    assert look(monkeypatch, extra, alone) == (
        Package("no-such-thing-a", "missing", None, "exporting", 'pip install "edgeq[onnx]"'),
        Package("no-such-thing-b", "missing", None, "comparing", "pip install no-such-thing-b"),
    )


def test_an_installed_package_is_found_without_being_imported(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("edgeq-fake-lib", "3.1", module="edgeq_fake_lib")
    (found,) = look(monkeypatch, Wanted("edgeq-fake-lib", "edgeq_fake_lib", None, "x"))
    assert (found.state, found.version, found.install) == ("ok", "3.1", "")


def test_metadata_without_the_module_is_a_broken_install(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("edgeq-half-lib", "1.0")
    (found,) = look(monkeypatch, Wanted("edgeq-half-lib", "edgeq_half_lib", None, "x"))
    assert (found.state, found.install) == ("broken", "pip install --force-reinstall edgeq-half-lib")


def test_a_version_older_than_edgeq_asks_for_is_named(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("rich", "9.0")
    (found,) = look(monkeypatch, Wanted("rich", "rich", "", "tables"))
    assert (found.state, found.version) == ("old", "9.0")
    assert found.install == 'pip install -U "rich>=13.9"'


def test_a_conflict_with_one_of_our_packages_is_noted(install: Install) -> None:
    install("optimum-intel", "2.2.0", "transformers<5.6", "no-such-thing>1", 'torch<1; extra == "old"')
    install("transformers", "5.23.0", module="transformers")
    (found,) = [p for p in examine().problems if "optimum-intel" in p]
    assert found == (
        "optimum-intel 2.2.0 needs transformers<5.6, installed is 5.23.0: "
        "keep optimum-intel in an environment of its own"
    )


def test_two_builds_of_onnxruntime_are_noted(install: Install) -> None:
    install("onnxruntime", "1.31.1")
    install("onnxruntime-gpu", "1.31.1")
    assert any("onnxruntime and onnxruntime-gpu overwrite each other" in p for p in examine().problems)


def test_places_say_how_much_is_free_and_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEQ_HOME", str(tmp_path / "not" / "yet"))
    places = {p.name: p for p in examine().places}
    assert places["measurements"].path == str(tmp_path / "not" / "yet")
    assert places["measurements"].note == "0 benchmarks"
    assert places["cache"].free_bytes > 0 and places["cache"].writable
    assert not (tmp_path / "not").exists()
    (tmp_path / "not" / "yet").mkdir(parents=True)
    (tmp_path / "not" / "yet" / "benchmarks.jsonl").write_text("torn\n", "utf-8")
    assert {p.name: p for p in examine().places}["measurements"].note == "0 benchmarks, 1 damaged line skipped"


def test_a_tool_on_the_path_says_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert {t.name: t.found for t in examine().tools}["adb"] is None
    program = tmp_path / "adb"
    program.write_text("#!/bin/sh\necho Android Debug Bridge version 1.0.41\n", "utf-8")
    program.chmod(0o755)
    assert {t.name: t.found for t in examine().tools}["adb"] == "Android Debug Bridge version 1.0.41"


def test_the_table_fits_eighty_columns_and_shows_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    report = examine()
    gone = Package("torch", "missing", None, "quantizing, verifying", 'pip install "edgeq[quantize]"')
    report = replace(report, packages=(*report.packages[:3], gone), problems=("a needs b[x]<1",))
    out = io.StringIO()
    render(report, Console(file=out, width=80, force_terminal=False))
    text = out.getvalue()
    assert 'pip install "edgeq[quantize]"' in text and "b[x]<1" in text
    assert all(len(line.rstrip()) <= 80 for line in text.splitlines() if report.python not in line)


def test_json_is_the_whole_report() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from edgeq.cli.main import main; main(['doctor', '--json'])"],
        capture_output=True,
        text=True,
        check=True,
    )
    report = json.loads(done.stdout)
    assert {p["name"] for p in report["packages"]} == {w.name for w in doctor.PACKAGES}
    assert set(report) == {"edgeq", "python", "system", "packages", "tools", "places", "problems"}
