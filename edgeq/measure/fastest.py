"""Which of a checkpoint's artifacts is the fastest here, and with how many threads, as measured by `edgeq bench`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeq.artifact import MANIFEST, Artifact, read_artifact
from edgeq.benchmark import Benchmark, device_key
from edgeq.device.load_ref import load_device
from edgeq.errors import EdgeqError
from edgeq.registry import names, runtime
from edgeq.store import Store


@dataclass(frozen=True, slots=True)
class Choice:
    """Attributes:
    artifact: what to open.
    best: its fastest measurement here; None: it was not measured.
    threads: of that measurement, where several numbers were tried; else None, the runtime's own choice.
    others: how many other artifacts could have been opened, and how many of these were measured.
    """

    artifact: Artifact
    best: Benchmark | None = None
    threads: int | None = None
    others: int = 0
    others_measured: int = 0

    @property
    def words(self) -> str:
        """Why this one, in a line."""
        name = f"{self.artifact.path} ({self.artifact.runtime}"
        if self.best is None:
            rest = f", the first of {self.others + 1}: `edgeq bench` finds the fastest" if self.others else ""
            return f"{name}, not measured here{rest})"
        count = f"{self.best.threads} thread{'' if self.best.threads == 1 else 's'}"
        speed = f"{self.best.decode.tps.median:.1f} tok/s with {count} on {self.best.date[:10]}"
        left = self.others - self.others_measured
        rest = f", the fastest of {self.others_measured + 1} measured here" if self.others else ""
        return f"{name}, {speed}{rest}{f'; {left} not measured' if left else ''})"


def artifacts_of(checkpoint: Path, beside: Path | None = None) -> list[Artifact]:
    """The artifacts that were exported from a checkpoint, by name; damaged ones are left out.

    Args:
        beside: the folder they lie in; None: the checkpoint's own.
    """
    place, found = checkpoint.resolve(), []
    for folder in sorted((place.parent if beside is None else beside).iterdir()):
        if not (folder / MANIFEST).is_file():
            continue
        try:
            artifact = read_artifact(folder)
        except EdgeqError:
            continue
        if artifact.checkpoint is not None and Path(artifact.checkpoint).resolve() == place:
            found.append(artifact)
    return found


def choose(path: str | Path, *, runtime_name: str = "auto", store: Store | None = None) -> Choice:
    """What to open: an artifact itself, or of a neutral checkpoint the artifact beside it that is the fastest measured.

    Args:
        runtime_name: other than `auto`: only a checkpoint's artifacts that were made for it, where there are any.

    Raises:
        EdgeqError: neither an artifact nor a checkpoint with one that can be opened here.
    """
    store = Store() if store is None else store
    folder = Path(path).expanduser()
    if (folder / MANIFEST).is_file() or not _is_checkpoint(folder):
        artifact = read_artifact(path)
        best, threads = _measured([artifact], store)[0]
        return Choice(artifact, best, threads)
    made = artifacts_of(folder)
    if runtime_name != "auto":
        made = [a for a in made if a.runtime == runtime_name] or made
    runs = [a for a in made if a.runtime in names("edgeq.runtimes") and runtime(a.runtime).missing() is None]
    if not runs:
        if not made:
            raise EdgeqError("a checkpoint without an artifact beside it", where=folder, hint=f"edgeq export {folder}")
        lack = ", ".join(sorted({a.runtime for a in made}))
        raise EdgeqError(f"no runtime of its artifacts is installed: {lack}", where=folder, hint="See `edgeq doctor`")
    ranked = sorted(
        zip(runs, _measured(runs, store), strict=True),
        key=lambda pair: -pair[1][0].decode.tps.median if pair[1][0] else 0.0,
    )
    artifact, (best, threads) = ranked[0]
    measured = sum(found is not None for _, (found, _) in ranked[1:])
    return Choice(artifact, best, threads, len(ranked) - 1, measured)


def _is_checkpoint(folder: Path) -> bool:
    from edgeq.checkpoint.store import Checkpoint

    try:
        Checkpoint.open(folder)
    except EdgeqError:
        return False
    return True


def _measured(artifacts: Sequence[Artifact], store: Store) -> list[tuple[Benchmark | None, int | None]]:
    """Each artifact's fastest measurement on this machine, and its threads where several numbers were tried.

    An artifact is known by its runtime, model, scheme and size, so that a moved one keeps its measurements.
    """
    known = store.benchmarks()
    own = [[b for b in known if benchmark_key(b) == artifact_key(a)] for a in artifacts]
    if not any(own):  # this machine need not be looked at
        return [(None, None)] * len(artifacts)
    here = device_key(load_device("auto"))
    found: list[tuple[Benchmark | None, int | None]] = []
    for benchmarks in own:
        local = [b for b in benchmarks if b.device == here]
        best = max(local, key=lambda b: b.decode.tps.median, default=None)
        several = len({b.threads for b in local}) > 1
        found.append((best, best.threads if best and several else None))
    return found


def benchmark_key(b: Benchmark) -> tuple[str, str, str, int]:
    """What an artifact is known by in the store: runtime, model, scheme, bytes."""
    return b.target.partition("/")[0], b.model, b.scheme, b.artifact_bytes


def artifact_key(a: Artifact) -> tuple[str, str, str, int]:
    """The same of an artifact."""
    return a.runtime, a.name, a.scheme, a.total_bytes


def choices(paths: Sequence[str | Path], *, store: Store | None = None) -> list[Choice]:
    """What a chat can be had with here, of several artifacts: the fastest measured first, then the latest made.

    Raises:
        EdgeqError: none of them; says why of the last one.
    """
    store = Store() if store is None else store
    found: list[Choice] = []
    problem = EdgeqError("no artifact", hint="Make one with `edgeq export`")
    for path in reversed(paths):
        try:
            found.append(_opens(choose(path, store=store)))
        except EdgeqError as error:
            problem = error if not found else problem
    if not found:
        raise problem
    return sorted(found, key=lambda c: -c.best.decode.tps.median if c.best else 0.0)


def _opens(choice: Choice) -> Choice:
    made_for = choice.artifact.runtime
    hint = "Export for onnx, openvino or gguf"
    if made_for not in names("edgeq.runtimes"):
        what = f"it is for {made_for}, which edgeq does not run"
        raise EdgeqError(what, where=choice.artifact.path, hint=hint)
    if absent := runtime(made_for).missing():
        raise EdgeqError(f"{made_for} is not installed here: {absent}", where=choice.artifact.path, hint="Install it")
    return choice
