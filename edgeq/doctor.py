"""What is installed, what is missing, what each missing thing would give. Imports none of what it looks at."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from edgeq import __version__
from edgeq.store import Store, cache_home, home

State = Literal["ok", "missing", "old", "broken"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A package edgeq can use: its name on PyPI, the module it installs, the extra that brings it ("": every
    install; None: none, it is on its own), and what it gives."""

    name: str
    module: str
    extra: str | None
    gives: str


PACKAGES = (
    Wanted("numpy", "numpy", "", "arithmetic"),
    Wanted("psutil", "psutil", "", "memory and load of this machine"),
    Wanted("typer", "typer", "", "the command line"),
    Wanted("rich", "rich", "", "tables and progress bars"),
    Wanted("platformdirs", "platformdirs", "", "where to keep caches and measurements"),
    Wanted("huggingface_hub", "huggingface_hub", "", "models from the hub"),
    Wanted("archspec", "archspec", "", "the processor's instruction sets"),
    Wanted("nvidia-ml-py", "pynvml", "", "memory and speed of NVIDIA GPUs"),
    Wanted("onnxruntime", "onnxruntime", "onnxruntime", "running exported ONNX artifacts"),
    Wanted("tokenizers", "tokenizers", "onnxruntime", "text in and out of a session"),
    Wanted("jinja2", "jinja2", "onnxruntime", "chat templates"),
    Wanted("torch", "torch", "quantize", "quantizing, verifying"),
    Wanted("safetensors", "safetensors", "quantize", "reading checkpoints"),
    Wanted("ml_dtypes", "ml_dtypes", "quantize", "bf16 and fp8 weights"),
    Wanted("gguf", "gguf", "quantize", "GGUF models as a source"),
    Wanted("sentencepiece", "sentencepiece", "quantize", "models that ship only a tokenizer.model"),
    Wanted("onnx", "onnx", "onnx", "`edgeq export`"),
    Wanted("openvino", "openvino", "openvino", "exporting to and running OpenVINO; Intel GPUs and NPUs"),
    Wanted("textual", "textual", "tui", "the wizard"),
    Wanted("onnxruntime-genai", "onnxruntime_genai", None, "a second runtime for the same artifact"),
    Wanted("openvino-tokenizers", "openvino_tokenizers", None, "tokenizers in OpenVINO exports, for openvino-genai"),
    Wanted("transformers", "transformers", None, "checking edgeq's decoder against its own"),
    Wanted("xllamacpp", "xllamacpp", "llamacpp", "running GGUF models with llama.cpp"),
)
# Two packages that install the same module: whichever came last wins, and neither works for sure.
SAME_MODULE = (("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino"),)


@dataclass(frozen=True, slots=True)
class Package:
    name: str
    state: State
    version: str | None
    gives: str
    install: str  # the pip line that brings it, "" when it is there


@dataclass(frozen=True, slots=True)
class Tool:
    """A program or driver outside Python. `found` is its path or version, None when absent."""

    name: str
    found: str | None
    gives: str
    hint: str


@dataclass(frozen=True, slots=True)
class Place:
    name: str
    path: str
    free_bytes: int
    writable: bool
    note: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    edgeq: str
    python: str
    system: str
    packages: tuple[Package, ...]
    tools: tuple[Tool, ...]
    places: tuple[Place, ...]
    problems: tuple[str, ...]

    @property
    def missing(self) -> tuple[Package, ...]:
        return tuple(p for p in self.packages if p.state != "ok")


def examine() -> Report:
    """Look at this installation. Takes about a fifth of a second; opens no network connection."""
    return Report(
        edgeq=__version__,
        python=f"{platform.python_version()} ({sys.executable})",
        system=f"{platform.system()} {platform.release()}, {platform.machine()}",
        packages=tuple(_package(wanted) for wanted in PACKAGES),
        tools=_tools(),
        places=_places(),
        problems=(*_conflicts(), *_shadowed()),
    )


def _package(wanted: Wanted) -> Package:
    line = f"pip install {wanted.name}" if wanted.extra is None else f'pip install "edgeq[{wanted.extra}]"'
    if wanted.extra == "":
        line = "pip install edgeq"
    try:
        version = distribution(wanted.name).version
    except PackageNotFoundError:
        # Some builds install the module under another name (onnxruntime-gpu); there is no version to show then.
        return Package(wanted.name, *_without_metadata(wanted.module), wanted.gives, line)
    if not _importable(wanted.module):
        again = f"pip install --force-reinstall {wanted.name}"
        return Package(wanted.name, "broken", version, wanted.gives, again)
    needed = version_range(wanted.name)
    if needed and not _satisfies(version, needed):
        return Package(wanted.name, "old", version, wanted.gives, f'pip install -U "{wanted.name}{needed}"')
    return Package(wanted.name, "ok", version, wanted.gives, "")


def _without_metadata(module: str) -> tuple[State, str | None]:
    return ("ok", "another build") if _importable(module) else ("missing", None)


def _importable(module: str) -> bool:
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        return False
    # A folder left behind by an uninstall is a namespace package: it has no loader to run.
    return spec is not None and spec.origin is not None


def version_range(name: str) -> str:
    """The version range edgeq's own metadata asks for, "" for none."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    try:
        lines = distribution("edgeq").requires or []
    except PackageNotFoundError:
        return ""
    wanted = canonicalize_name(name)
    return next((str(r.specifier) for r in map(Requirement, lines) if canonicalize_name(r.name) == wanted), "")


def _satisfies(version: str, specifier: str) -> bool:
    from packaging.specifiers import SpecifierSet
    from packaging.version import InvalidVersion

    try:
        return SpecifierSet(specifier).contains(version, prereleases=True)
    except InvalidVersion:
        return True


def _conflicts() -> tuple[str, ...]:
    """Installed packages whose requirements other installed ones break, where one of the two is of use to edgeq.

    This is what `pip check` looks at (PEP 508 requirements with their markers), for our packages alone.
    """
    from packaging.utils import canonicalize_name

    installed: dict[str, Distribution] = {canonicalize_name(d.name): d for d in distributions() if d.name}
    ours = {canonicalize_name(w.name) for w in PACKAGES}
    found = []
    for name, one in installed.items():
        for needs, have, specifier in _broken_requirements(one, installed):
            if name in ours or needs in ours:
                found.append(
                    f"{one.name} {one.version} needs {needs}{specifier}, installed is {have}: keep {one.name} in an "
                    "environment of its own"
                )
    return tuple(sorted(set(found)))


def _broken_requirements(one: Distribution, installed: dict[str, Distribution]) -> list[tuple[str, str, str]]:
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    broken: list[tuple[str, str, str]] = []
    for line in one.requires or []:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        name = canonicalize_name(requirement.name)
        other = installed.get(name)
        if other and not _satisfies(other.version, str(requirement.specifier)):
            broken.append((name, other.version, str(requirement.specifier)))
    return broken


def _shadowed() -> tuple[str, ...]:
    present = {d.name.lower().replace("_", "-") for d in distributions() if d.name}
    found = []
    for group in SAME_MODULE:
        both = [name for name in group if name in present]
        if len(both) > 1:
            found.append(f"{' and '.join(both)} overwrite each other: uninstall all of them, then install one")
    return tuple(found)


def _tools() -> tuple[Tool, ...]:
    return (
        Tool("adb", _program("adb", "version"), "profiles Android phones", "Android platform-tools"),
        Tool("NVIDIA driver", _nvidia_driver(), "plans for NVIDIA GPUs", "only with such a GPU"),
        Tool("GPU device node", _render_node(), "plans for Intel and AMD GPUs", "only with such a GPU"),
        Tool("llama-server", _program("llama-server", "--version"), "runs GGUF schemes", "from llama.cpp"),
    )


def _program(name: str, flag: str) -> str | None:
    path = shutil.which(name)
    if path is None:
        return None
    try:
        done = subprocess.run([path, flag], capture_output=True, text=True, timeout=5, errors="replace", check=False)
    except (OSError, subprocess.TimeoutExpired):
        return f"{path} (does not answer)"
    said = (done.stdout or done.stderr).strip().splitlines()
    return said[0].strip() if said else path


def _nvidia_driver() -> str | None:
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # absent, or no driver behind it: NVML has an error class for each case
        return None
    try:
        version = pynvml.nvmlSystemGetDriverVersion()
        return version.decode() if isinstance(version, bytes) else str(version)
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def _render_node() -> str | None:
    nodes = sorted(Path("/dev/dri").glob("renderD*")) if sys.platform == "linux" else []
    return ", ".join(map(str, nodes)) or None


def _places() -> tuple[Place, ...]:
    store = Store()
    kept = len(store.benchmarks())
    note = f"{kept} benchmark{'' if kept == 1 else 's'}"
    if store.skipped:
        note += f", {store.skipped} damaged line{'' if store.skipped == 1 else 's'} skipped"
    return (
        _place("measurements", home(), note),
        _place("cache", cache_home(), ""),
        _place("this folder", Path.cwd(), ""),
    )


def _place(name: str, path: Path, note: str) -> Place:
    existing = path
    while not existing.exists():  # the root exists
        existing = existing.parent
    return Place(name, str(path), shutil.disk_usage(existing).free, os.access(existing, os.W_OK), note)
