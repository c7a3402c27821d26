"""Exporters and runtimes, found through entry points, so that a third party can add one in its own package.

The core never imports an exporter or a runtime by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

from edgeq.errors import EdgeqError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgeq.artifact import Artifact
    from edgeq.device.spec import KernelRate
    from edgeq.model.spec import ModelSpec
    from edgeq.scheme import Grid

Progress = Callable[[int, int, str], None]  # done, total, what


class Session(Protocol):
    """An artifact opened by its runtime. The same for every runtime; the options are told at
    `edgeq.runtimes.session.TextSession`.

    Attributes:
        stats: what the last generation did: `prompt_tokens`, `new_tokens`, `ttft_s`, `prefill_tps`, `decode_tps`, ...
        tokenizer: `encode`, `decode`, `render`.
        messages: the conversation that `chat` continues.
    """

    stats: Any
    tokenizer: Any
    messages: list[Mapping[str, Any]]

    def generate(self, prompt: str | Sequence[int], **options: Any) -> str: ...
    def stream(self, prompt: str | Sequence[int], **options: Any) -> Iterator[str]: ...
    def chat(self, messages: str | Sequence[Mapping[str, Any]], **options: Any) -> str: ...
    def stream_chat(self, messages: str | Sequence[Mapping[str, Any]], **options: Any) -> Iterator[str]: ...
    def logits(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """float32 (len(ids), vocab): the logits after each token of a fresh sequence."""
        ...

    def cancel(self) -> None: ...
    def reset(self) -> None: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, kind: Any, error: Any, trace: Any) -> None: ...


@runtime_checkable
class Exporter(Protocol):
    """Turns a neutral checkpoint into one runtime's artifact.

    Attributes:
        options: what `export` takes beside `progress`, `force` and `plan`; `edgeq export` has a flag for each
            (`kv_dtype` is `--kv-dtype`).
        choices: optional: the values that one of these takes, its default first; None: a default that depends.
        about: optional: what its artifacts are for, in a few words.
        layers_only: optional: an embedding or head that can't be stored as codes is written as floats.
    """

    name: str
    options: frozenset[str]

    def refuses(self, grid: Grid) -> str | None:
        """Why this grid can't be stored losslessly, or None when it can."""
        ...

    def export(self, checkpoint: Any, out: Path, *, progress: Progress | None = None, **options: Any) -> Artifact: ...


@runtime_checkable
class Runtime(Protocol):
    name: str

    def missing(self) -> str | None:
        """What has to be installed before this runtime works, or None when it does."""
        ...

    def open(self, artifact: Artifact, **options: Any) -> Session: ...

    def probe(self) -> list[KernelRate]:
        """Measure this runtime's kernels on this machine: the basis of expected speeds. Under 20 seconds on a PC."""
        ...


def exporter(name: str) -> Exporter:
    made = _load("edgeq.exporters", name)
    if not isinstance(made, Exporter):
        raise EdgeqError(f"the exporter {name!r} does not follow edgeq's exporter protocol")
    return made


def runtime(name: str) -> Runtime:
    made = _load("edgeq.runtimes", name)
    if not isinstance(made, Runtime):
        raise EdgeqError(f"the runtime {name!r} does not follow edgeq's runtime protocol")
    return made


def adopted(file: Path) -> Artifact:
    """A single file as an artifact, by the first exporter that has `adopt(file)` and knows files of this kind.

    Raises:
        EdgeqError: none does, or the file is damaged.
    """
    for name in names("edgeq.exporters"):
        adopt = getattr(exporter(name), "adopt", None)
        found: Artifact | None = adopt(file) if adopt is not None else None
        if found is not None:
            return found
    raise EdgeqError("no exporter knows files of this kind", where=file, hint="Give a folder that `edgeq export` made")


def refusals(exporter: Exporter, spec: ModelSpec, layers: Iterable[Grid], others: Iterable[Grid]) -> list[str]:
    """Why an exporter can't store a model; empty: it says nothing against it.

    Args:
        layers: grids of the layers' matrices.
        others: of the embedding and the head, which an exporter with `layers_only` writes as floats if it must.
    """
    refuses_model = getattr(exporter, "refuses_model", None)
    why = None if refuses_model is None else refuses_model(spec)
    judged = [*layers, *(() if getattr(exporter, "layers_only", False) else others)]
    reasons = [exporter.refuses(grid) for grid in judged if grid.kind != "float"]
    return list(dict.fromkeys(r for r in (why, *reasons) if r is not None))


def runtimes() -> dict[str, str | None]:
    """Every runtime by name, with what has to be installed before it works; None: it does. Imports none of them."""
    found: dict[str, str | None] = {}
    for name in names("edgeq.runtimes"):
        try:
            found[name] = runtime(name).missing()
        except EdgeqError as error:
            found[name] = error.what
    return found


def names(group: str) -> list[str]:
    return sorted({e.name for e in entry_points(group=group)})


def _load(group: str, name: str) -> Any:
    found: list[EntryPoint] = [e for e in entry_points(group=group) if e.name == name]
    if not found:
        known = ", ".join(names(group)) or "none: edgeq is not installed, only on the path"
        raise EdgeqError(f"no {group.split('.')[1][:-1]} named {name!r}", hint=f"Known: {known}")
    try:
        return found[0].load()()
    except ImportError as error:
        raise EdgeqError(
            f"{name} needs a package that is not installed: {error.name}", hint="`edgeq doctor` says what to install"
        ) from error
