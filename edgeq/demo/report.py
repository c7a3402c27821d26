"""What the demo found, as data."""

from __future__ import annotations

from dataclasses import dataclass

from edgeq.benchmark import Benchmark
from edgeq.measure.verify import Verification

SPEED_GOAL, MEMORY_GOAL = 0.15, 0.10  # how far the measurement may be from the plan


@dataclass(frozen=True, slots=True)
class Outcome:
    """A planned figure beside the measured one, in `unit`. `goal` is how far apart they may be, None: not judged."""

    name: str
    unit: str
    planned: float | None
    measured: float
    goal: float | None = None

    @property
    def ratio(self) -> float | None:
        """Measured over planned."""
        return self.measured / self.planned if self.planned else None

    @property
    def met(self) -> bool | None:
        """Whether the goal was met; None without a goal or a plan."""
        if self.goal is None or self.ratio is None:
            return None
        return abs(self.ratio - 1) <= self.goal


@dataclass(frozen=True, slots=True)
class Report:
    """The demo's end.

    Attributes:
        model, source: which model, and where it came from.
        scheme, target: what the plan chose.
        prompt, answer: the sample of text.
        outcomes: planned beside measured: decode speed, peak memory, file sizes.
        seconds: what each step took, in order; 0 where an earlier run's work was taken up.
        artifact, checkpoint: where they lie (no checkpoint where it was not kept).
    """

    model: str
    source: str
    device: str
    scheme: str
    target: str
    prompt: str
    answer: str
    outcomes: tuple[Outcome, ...]
    verification: Verification
    benchmark: Benchmark
    seconds: tuple[tuple[str, float], ...]
    artifact: str
    artifact_bytes: int
    checkpoint: str | None


def outcomes(benchmark: Benchmark, planned_file_bytes: int, file_bytes: int) -> tuple[Outcome, ...]:
    """The comparison that the demo ends in."""
    promise = benchmark.promise
    memory = None if promise.memory_bytes is None else promise.memory_bytes / 2**20
    return (
        Outcome("decode", "tok/s", promise.decode_tps, benchmark.decode.tps.median, SPEED_GOAL),
        Outcome("peak memory", "MiB", memory, benchmark.peak_bytes / 2**20, MEMORY_GOAL),
        Outcome("weights on disk", "MB", planned_file_bytes / 1e6, file_bytes / 1e6),
    )
