"""The package as it is installed: nothing missing, no import up the floors, nothing heavy loaded by light commands."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TREES = {"edgeq": ROOT / "edgeq", "edgeq.exporters": ROOT / "exporters", "edgeq.runtimes": ROOT / "runtimes"}
TREES["edgeq.tui"] = ROOT / "tui"

# A module may import its own floor and those below it. Longest prefix wins.
FLOORS = {
    "edgeq": 0,  # edgeq/__init__.py: lazy names only
    "edgeq.errors": 0,
    "edgeq.__main__": 6,
    "edgeq.jsonable": 0,
    "edgeq.callable_package": 0,
    "edgeq.files": 0,
    "edgeq.amounts": 0,
    "edgeq.model": 1,
    "edgeq.device": 1,
    "edgeq.scheme": 1,
    "edgeq.checkpoint": 1,
    "edgeq.formats": 1,
    "edgeq.artifact": 1,
    "edgeq.benchmark": 1,
    "edgeq.store": 1,
    "edgeq.registry": 1,
    "edgeq.decoder": 2,
    "edgeq.estimate": 2,
    "edgeq.recipe": 2,
    "edgeq.exporters": 2,
    "edgeq.runtimes": 2,
    "edgeq.quantize": 3,
    "edgeq.conversion": 3,
    "edgeq.export_command": 3,
    "edgeq.plan": 3,
    "edgeq.measure": 3,
    "edgeq.api": 4,
    "edgeq.jobs": 4,
    "edgeq.journey": 4,
    "edgeq.demo": 5,
    "edgeq.deliver": 5,
    "edgeq.doctor": 5,
    "edgeq.cli": 6,
    "edgeq.tui": 6,
}
# An app that only runs a model loads only these of the core.
RUNTIME_MAY_IMPORT = (
    "edgeq.errors",
    "edgeq.jsonable",
    "edgeq.files",
    "edgeq.artifact",
    "edgeq.registry",
    "edgeq.device",
    "edgeq.runtimes",
)


def modules() -> Iterator[tuple[str, Path]]:
    for package, folder in TREES.items():
        for file in sorted(folder.rglob("*.py")):
            parts = file.relative_to(folder).with_suffix("").parts
            yield ".".join([package, *(p for p in parts if p != "__init__")]), file


def imported(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{a.name}" for a in node.names} if node.module == "edgeq" else {node.module}
    return {name for name in found if name == "edgeq" or name.startswith("edgeq.")}


def floor(name: str) -> int:
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        if ".".join(parts[:n]) in FLOORS and (n > 1 or len(parts) == 1):
            return FLOORS[".".join(parts[:n])]
    if parts[1:2] == ["__version__"]:
        return 0
    raise AssertionError(f"{name} stands on no floor: add it to FLOORS")


def test_no_import_runs_back_up() -> None:
    wrong = [
        f"{name} imports {target}"
        for name, file in modules()
        if name != "edgeq"
        for target in imported(file)
        if floor(target) > floor(name)
    ]
    assert not wrong


def test_core_never_imports_an_exporter_or_a_runtime() -> None:
    outside = ("edgeq.exporters", "edgeq.runtimes")
    wrong = [
        f"{name} imports {target}"
        for name, file in modules()
        if not name.startswith((*outside, "edgeq.tui"))
        for target in imported(file)
        if target.startswith(outside)
    ]
    assert not wrong


def test_onnxruntime_session_stands_on_the_manifest_alone() -> None:
    wrong = [
        f"{name} imports {target}"
        for name, file in modules()
        if name.startswith("edgeq.runtimes") and not name.startswith("edgeq.runtimes.torch")
        for target in imported(file)
        if not target.startswith(RUNTIME_MAY_IMPORT)
    ]
    assert not wrong


def test_every_package_is_listed_for_installation() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"])
    present = {name for name, file in modules() if file.name == "__init__.py"}
    assert listed == present


def test_every_data_file_is_listed_for_installation() -> None:
    """A pattern holds for a package's own folder, not for those below it: what no pattern names is in no wheel."""
    given = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["package-data"]
    packages = {file.parent: name for name, file in modules() if file.name == "__init__.py"}
    lost = []
    for folder in TREES.values():
        for file in folder.rglob("*"):
            if file.suffix in ("", ".py", ".pyc") or not file.is_file():
                continue
            home = next(above for above in file.parents if above in packages)
            patterns = [*given["*"], *given.get(packages[home], [])]
            if not any(file in set(home.glob(pattern)) for pattern in patterns):
                lost.append(str(file.relative_to(ROOT)))
    assert not lost


def test_entry_points_name_real_modules() -> None:
    found = [*entry_points(group="edgeq.exporters"), *entry_points(group="edgeq.runtimes")]
    assert {e.name for e in found} >= {"onnx", "gguf", "onnxruntime", "llamacpp", "torch"}
    assert all(callable(e.load()) for e in found)


HEAVY = ("torch", "transformers", "openvino", "onnxruntime", "onnx", "tokenizers", "textual", "safetensors")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["inspect", "7B"],
        ["plan", "--device", "rpi-5", "--model", "7B"],
        ["plan", "--device", "auto", "--model", "7B", "--json"],
        ["doctor"],
        *[[name, "--help"] for name in ("plan", "profile", "quantize", "convert", "export", "run", "bench", "verify")],
        ["demo", "--help"],
    ],
    ids=" ".join,
)
def test_light_commands_import_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys\n"
        "from edgeq.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code\n"
        f"bad = [m for m in {HEAVY!r} if m in sys.modules]\n"
        "assert not bad, bad\n"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_import_edgeq_is_free() -> None:
    program = "import sys; before = set(sys.modules); import edgeq; print(*(set(sys.modules) - before))"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not [m for m in out if m.split(".")[0] in (*HEAVY, "numpy", "rich", "typer", "psutil")]
