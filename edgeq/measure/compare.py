"""Several artifacts side by side: measured in turns (A B A B ...), so that what disturbs the machine hits all of them.

Each round gives a ratio of its own; the comparison has the middle one and the range. Where the range includes 1, the
two are as fast as each other as far as was measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from edgeq.artifact import Artifact, read_artifact
from edgeq.benchmark import Benchmark, Samples
from edgeq.device.spec import Device
from edgeq.errors import EdgeqError
from edgeq.measure.bench import Turn, Workload, doubts, in_turns
from edgeq.measure.likeness import Likeness, likeness
from edgeq.measure.live import Live
from edgeq.measure.promise import promise_of
from edgeq.registry import Progress, names, runtime

ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Ratio:
    """One artifact's figure over the first one's: the middle of the rounds', and the lowest and highest of them."""

    value: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """All rounds say the same: more, or less."""
        return not self.low <= 1 <= self.high


@dataclass(frozen=True, slots=True)
class Side:
    """One artifact of a comparison.

    Attributes:
        decode: its tokens/s over the first one's.
        prefill: the same for each of `benchmark.prefill`; None where the first was not measured with that length.
        start, peak: seconds to start, and peak memory, over the first one's.
        likeness: how close its answers are to the model's it was made of, where that is known.
    """

    benchmark: Benchmark
    decode: Ratio
    prefill: tuple[Ratio | None, ...]
    start: float
    peak: float
    likeness: Likeness | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Attributes:
    sides: in the order they were given; the ratios are to the first.
    rounds: repetitions of each round; empty: not measured in turns, but in runs of their own.
    """

    date: str
    device: str
    rounds: tuple[int, ...]
    sides: tuple[Side, ...]
    warnings: tuple[str, ...] = ()

    @property
    def fastest(self) -> Side:
        return max(self.sides, key=lambda side: side.decode.value)


def rounds_of(reps: int) -> tuple[int, ...]:
    """`ROUNDS` rounds, or one a repetition where there are fewer: 5 -> 2, 2, 1."""
    count = min(ROUNDS, reps)
    return tuple(reps // count + (i < reps % count) for i in range(count))


def refuse_unable(artifacts: Sequence[Artifact], workload: Workload) -> None:
    """Before anything is measured: each has a runtime here, and the work fits its context.

    Raises:
        EdgeqError: of the first that does not.
    """
    for artifact in artifacts:
        why = unable(artifact)
        if why is not None:
            raise EdgeqError(why.what, where=artifact.path, hint=why.hint)
        workload.fitted(int(artifact.model.get("max_positions", 1 << 20)))


@dataclass(frozen=True, slots=True)
class Unable:
    """Why an artifact can't be run here, and the way out."""

    what: str
    hint: str


def unable(artifact: Artifact) -> Unable | None:
    """Why an artifact can't be run here; None: it can."""
    if artifact.runtime not in names("edgeq.runtimes"):
        return Unable(f"edgeq has no runtime {artifact.runtime}", "Other tools run it: `edgeq doctor` lists edgeq's")
    missing = runtime(artifact.runtime).missing()
    if missing is None:
        return None
    return Unable(f"its runtime {artifact.runtime} needs {missing}", f"pip install {missing.replace(',', '')}")


def open_all(paths: Sequence[str | Path]) -> list[Artifact]:
    """Raises:
    EdgeqError: of the first that is not an artifact, or damaged.
    """
    return [read_artifact(path) for path in paths]


def compare(
    artifacts: Sequence[Artifact],
    device: Device,
    *,
    workload: Workload | None = None,
    options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    live: Live | None = None,
) -> Comparison:
    """Measure artifacts on this machine in turns; all are looked at before the first is measured.

    Args:
        device: this machine, for the record and the promises.
        options: passed on to `edgeq.load`, of each.
        live: see `edgeq.measure.live.Told`.

    Raises:
        EdgeqError: fewer than two, one of them can't be run here, or a worker died.
    """
    if len(artifacts) < 2:
        raise EdgeqError("a comparison takes two artifacts or more")
    load = workload or Workload()
    refuse_unable(artifacts, load)
    shortest = min(int(a.model.get("max_positions", 1 << 20)) for a in artifacts)
    load, rounds = load.fitted(shortest), rounds_of(load.reps)
    turns = [Turn(a, promise_of(a, device, load), options) for a in artifacts]
    called = short_names([(str(a.path), a.runtime) for a in artifacts])
    found = in_turns(turns, device, load, rounds=rounds, names=called, progress=progress, live=live)
    return beside(found, [likeness(a) for a in artifacts], rounds)


def short_names(artifacts: Sequence[tuple[str, str]]) -> list[str]:
    """Names that are short and differ: the folders' without what all of them begin with, else numbered.

    Args:
        artifacts: path and runtime of each.
    """
    folders = [Path(path).name for path, _ in artifacts]
    parts = [f.replace("_", "-").split("-") for f in folders]
    common = 0
    while len(set(folders)) > 1 and len({tuple(p[: common + 1]) for p in parts}) == 1:
        common += 1
    found = ["-".join(p[common:]) or run for p, (_, run) in zip(parts, artifacts, strict=True)]
    return found if len(set(found)) == len(found) else [f"{f} {i}" for i, f in enumerate(found, 1)]


def beside(found: Sequence[Benchmark], alike: Sequence[Likeness | None], rounds: Sequence[int] = ()) -> Comparison:
    """Benchmarks set beside the first of them.

    Args:
        rounds: repetitions of each round that they were measured in, in turns; empty: in runs of their own.
    """
    first = found[0]
    lengths = {p.tokens: p.tps for p in first.prefill}
    sides = tuple(
        Side(
            one,
            _ratio(one.decode.tps, first.decode.tps, rounds),
            tuple(_ratio(p.tps, lengths[p.tokens], rounds) if p.tokens in lengths else None for p in one.prefill),
            (one.import_s + one.load_s) / max(first.import_s + first.load_s, 1e-9),
            one.peak_bytes / max(first.peak_bytes, 1),
            like,
        )
        for one, like in zip(found, alike, strict=True)
    )
    return Comparison(max(one.date for one in found), first.device, tuple(rounds), sides, _doubts(found))


def _doubts(found: Sequence[Benchmark]) -> tuple[str, ...]:
    """Of the machine once, at its busiest; of each artifact's spread."""
    calm = Samples((1.0,))
    busy = doubts(max(one.load_before for one in found), max(one.load_during for one in found), calm)
    called = short_names([(one.artifact, one.target.partition("/")[0]) for one in found])
    own = [f"{name}: {line}" for name, one in zip(called, found, strict=True) for line in doubts(0, 0, one.decode.tps)]
    return (*busy, *own)


def _ratio(ours: Samples, first: Samples, rounds: Sequence[int]) -> Ratio:
    """Of the rounds' medians; without rounds the range is what the repetitions allow."""
    if not rounds:
        value = ours.median / first.median
        return Ratio(value, min(ours.runs) / max(first.runs), max(ours.runs) / min(first.runs))
    ratios, at = [], 0
    for reps in rounds:
        ratios.append(median(ours.runs[at : at + reps]) / median(first.runs[at : at + reps]))
        at += reps
    return Ratio(median(ratios), min(ratios), max(ratios))
