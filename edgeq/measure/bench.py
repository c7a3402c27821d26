"""`bench`: an artifact's speed, start and memory, measured in a process of its own beside what was promised."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgeq import __version__
from edgeq.artifact import Artifact
from edgeq.benchmark import Benchmark, Decode, Prefill, Promise, Samples, device_key
from edgeq.device.load import BUSY
from edgeq.device.spec import Device
from edgeq.errors import EdgeqError
from edgeq.measure.process import Event, Watched, others_now, run_worker
from edgeq.registry import Progress, runtime

WORKER = "edgeq.measure.bench_worker"
DOUBTFUL_SPREAD = 0.10


@dataclass(frozen=True, slots=True)
class Workload:
    """What is measured.

    Attributes:
        prompt_tokens: prompt lengths to prefill; those beyond the model's context are left out.
        tokens: new tokens of one decoding, after a prompt of `context` tokens.
        reps: repetitions of each, besides one warm-up.
        threads: of the runtime; None: its own choice.
    """

    prompt_tokens: tuple[int, ...] = (32, 128, 512)
    tokens: int = 128
    context: int = 32
    reps: int = 5
    threads: int | None = None

    def fitted(self, max_positions: int) -> Workload:
        """The same within a model's context.

        Raises:
            EdgeqError: a number that can't be measured.
        """
        numbers = (*self.prompt_tokens, self.tokens, self.context, self.reps, self.threads or 1)
        if min(numbers) < 1:
            raise EdgeqError(f"{min(numbers)} is not a number of tokens, repetitions or threads", hint="Use 1 or more")
        lengths = tuple(sorted({n for n in self.prompt_tokens if n < max_positions}))
        tokens = min(self.tokens, max_positions // 2)
        context = min(self.context, max_positions - tokens - 1)
        if not lengths or context < 1:
            raise EdgeqError(f"the model's context of {max_positions} tokens holds none of these prompts")
        return Workload(lengths, tokens, context, self.reps, self.threads)


def bench(
    artifact: Artifact,
    device: Device,
    *,
    workload: Workload | None = None,
    promise: Promise | None = None,
    options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Benchmark:
    """Measure an artifact on this machine; takes about as long as (reps + 1) times the work asked for.

    Args:
        device: this machine, for the record; nothing is measured on another one.
        promise: what to print beside the measurement.
        options: passed on to `edgeq.load` in the worker.

    Raises:
        EdgeqError: the artifact can't be loaded, the work does not fit its context, or the worker died.
    """
    load = (workload or Workload()).fitted(int(artifact.model.get("max_positions", 1 << 20)))
    options = dict(options or {}) | ({} if load.threads is None else {"threads": load.threads})
    request = {
        "path": str(Path(artifact.path).resolve()),
        "prompt_tokens": load.prompt_tokens,
        "tokens": load.tokens,
        "context": load.context,
        "reps": load.reps,
        "options": options,
    }
    before = others_now()
    watched = run_worker(WORKER, request, _report_to(progress))
    return _benchmark(artifact, device, load, watched, before, promise or Promise())


def _report_to(progress: Progress | None) -> Callable[[Event], None]:
    def report(event: Event) -> None:
        if progress is not None and "done" in event:
            progress(int(event["done"]), int(event["total"]), str(event["what"]))

    return report


def _benchmark(
    artifact: Artifact, device: Device, load: Workload, watched: Watched, before: float, promise: Promise
) -> Benchmark:
    found = watched.result
    prefills = tuple(
        Prefill(n, Samples.of(n / s for s, _ in runs), Samples.of(t for _, t in runs))
        for n, runs in sorted((int(n), runs) for n, runs in found["prefill"].items())
    )
    decode = Decode(load.tokens, load.context, Samples.of(1 / s for s in found["decode"]))
    return Benchmark(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        device=device_key(device),
        target=f"{artifact.runtime}/{artifact.options.get('processor', 'cpu')}",
        model=artifact.name,
        family=str(artifact.model.get("family", "")),
        scheme=artifact.scheme,
        artifact=str(artifact.path),
        artifact_bytes=artifact.total_bytes,
        threads=load.threads or int(found["threads"]),
        import_s=float(found["import_s"]),
        load_s=float(found["load_s"]),
        prefill=prefills,
        decode=decode,
        baseline_bytes=int(found["baseline_bytes"]),
        loaded_bytes=int(found["loaded_bytes"]),
        peak_bytes=max(int(found["peak_bytes"]), watched.sampled_peak_bytes),
        load_before=round(before, 3),
        load_during=round(watched.others, 3),
        promise=promise,
        versions=_versions(artifact.runtime),
        warnings=doubts(before, watched.others, decode.tps),
    )


def doubts(before: float, during: float, decode: Samples) -> tuple[str, ...]:
    """Why the figures should not be relied on; empty when nothing speaks against them."""
    found = []
    if max(before, during) > BUSY:
        found.append(f"other programs took {before:.0%} of the machine before and {during:.0%} during the measurement")
    if decode.spread > DOUBTFUL_SPREAD:
        found.append(f"the decode speed varied by {decode.spread:.0%} between repetitions")
    return tuple(found)


def _versions(name: str) -> tuple[tuple[str, str], ...]:
    """edgeq's version and that of the runtime's package, which has its name where it names no other."""
    package = str(getattr(runtime(name), "package", name))
    try:
        return (("edgeq", __version__), (package, version(package)))
    except PackageNotFoundError:
        return (("edgeq", __version__),)


def ratio(measured: float, promised: float | None) -> float | None:
    """Measured over promised, None where nothing was promised."""
    return measured / promised if promised else None
