"""`bench`: an artifact's speed, start and memory, measured in a process of its own beside what was promised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import fmean, median
from typing import Any

from edgeq import __version__
from edgeq.artifact import Artifact
from edgeq.benchmark import Benchmark, Decode, Prefill, Promise, Samples, device_key
from edgeq.device.load import BUSY
from edgeq.device.spec import Device
from edgeq.errors import EdgeqError
from edgeq.measure.live import Live, Told
from edgeq.measure.process import Watched, others_now, run_worker
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


@dataclass(frozen=True, slots=True)
class Turn:
    """One artifact of a run, and what it is measured beside.

    Attributes:
        options: passed on to `edgeq.load` in the worker.
    """

    artifact: Artifact
    promise: Promise
    options: Mapping[str, Any] | None = None


def bench(
    artifact: Artifact,
    device: Device,
    *,
    workload: Workload | None = None,
    promise: Promise | None = None,
    options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    live: Live | None = None,
) -> Benchmark:
    """Measure an artifact on this machine; takes about as long as (reps + 1) times the work asked for.

    Args:
        device: this machine, for the record; nothing is measured on another one.
        promise: what to print beside the measurement.
        options: passed on to `edgeq.load` in the worker.
        progress: told when a piece of work ends.
        live: told that too, and the speed in between.

    Raises:
        EdgeqError: the artifact can't be loaded, the work does not fit its context, or the worker died.
    """
    turn = Turn(artifact, promise or Promise(), options)
    load = workload or Workload()
    return in_turns([turn], device, load, rounds=(load.reps,), progress=progress, live=live)[0]


def in_turns(
    turns: Sequence[Turn],
    device: Device,
    workload: Workload,
    *,
    rounds: Sequence[int],
    names: Sequence[str] = ("",),
    progress: Progress | None = None,
    live: Live | None = None,
) -> list[Benchmark]:
    """Measure several artifacts in turns, one benchmark each; see `bench`.

    Args:
        rounds: repetitions of each round; in a round each artifact has its turn, in a process of its own, so that
            there is never more than one of them in memory.
        names: of the artifacts, for `progress` and `live`.
    """
    loads = [workload.fitted(int(turn.artifact.model.get("max_positions", 1 << 20))) for turn in turns]
    told = Told(names, rounds, len(loads[0].prompt_tokens) + 1, progress, live)
    before = others_now()
    watched: list[list[Watched]] = [[] for _ in turns]
    for number, reps in enumerate(rounds):
        for i, (turn, load) in enumerate(zip(turns, loads, strict=True)):
            told.begins(number, i)
            watched[i].append(run_worker(WORKER, _request(turn, load, reps), told))
            told.ended()
    return [
        _benchmark(turn.artifact, device, replace(load, reps=sum(rounds)), seen, before, turn.promise)
        for turn, load, seen in zip(turns, loads, watched, strict=True)
    ]


def _request(turn: Turn, load: Workload, reps: int) -> dict[str, Any]:
    options = dict(turn.options or {}) | ({} if load.threads is None else {"threads": load.threads})
    return {
        "path": str(Path(turn.artifact.path).resolve()),
        "prompt_tokens": load.prompt_tokens,
        "tokens": load.tokens,
        "context": load.context,
        "reps": reps,
        "options": options,
    }


def _benchmark(
    artifact: Artifact, device: Device, load: Workload, rounds: Sequence[Watched], before: float, promise: Promise
) -> Benchmark:
    """Of the rounds together: their repetitions one after the other, the median start, the highest memory."""
    found = [watched.result for watched in rounds]
    prefills = []
    for n in load.prompt_tokens:
        runs = [run for one in found for run in one["prefill"][str(n)]]
        prefills.append(Prefill(n, Samples.of(n / s for s, _ in runs), Samples.of(t for _, t in runs)))
    decode = Decode(load.tokens, load.context, Samples.of(1 / s for one in found for s in one["decode"]))
    during = fmean(watched.others for watched in rounds)
    return Benchmark(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        device=device_key(device),
        target=f"{artifact.runtime}/{artifact.options.get('processor', 'cpu')}",
        model=artifact.name,
        family=str(artifact.model.get("family", "")),
        scheme=artifact.scheme,
        artifact=str(artifact.path),
        artifact_bytes=artifact.total_bytes,
        threads=load.threads or int(found[0]["threads"]),
        import_s=median(float(one["import_s"]) for one in found),
        load_s=median(float(one["load_s"]) for one in found),
        prefill=tuple(prefills),
        decode=decode,
        baseline_bytes=max(int(one["baseline_bytes"]) for one in found),
        loaded_bytes=max(int(one["loaded_bytes"]) for one in found),
        peak_bytes=max(max(int(w.result["peak_bytes"]), w.sampled_peak_bytes) for w in rounds),
        load_before=round(before, 3),
        load_during=round(during, 3),
        promise=promise,
        versions=_versions(artifact.runtime),
        warnings=doubts(before, during, decode.tps),
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
