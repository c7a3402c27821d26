"""What is already known of an artifact's speed here, and how long a measurement of it will take."""

from __future__ import annotations

from collections.abc import Sequence

from edgeq.artifact import Artifact
from edgeq.benchmark import Benchmark, Promise, device_key
from edgeq.device.spec import Device
from edgeq.measure.bench import Workload
from edgeq.measure.bench_worker import WARM_UP_TOKENS
from edgeq.measure.fastest import artifact_key, benchmark_key
from edgeq.store import Store

START_S = 2.0  # of a process that imports a runtime
LOAD_BYTES_PER_S = 1e9
PREFILL_GAIN = 5.0  # prefill over decode speed, where nothing is promised of prefill


def latest(artifacts: Sequence[Artifact], device: Device, store: Store | None = None) -> list[Benchmark | None]:
    """Each artifact's latest measurement on the device; None: there is none.

    An artifact is known by its runtime, model, scheme and size, so that a moved one keeps its measurements.
    """
    found: dict[tuple[str, str, str, int], Benchmark] = {}
    for one in (Store() if store is None else store).benchmarks(device=device_key(device)):
        found[benchmark_key(one)] = one
    return [found.get(artifact_key(a)) for a in artifacts]


def expected_seconds(
    work: Workload, artifact: Artifact, promise: Promise, known: Benchmark | None = None, rounds: int = 1
) -> float | None:
    """How long a measurement takes, by an earlier one or by the promise; None where there is neither.

    Args:
        work: that fits the artifact's context.
        rounds: processes that share the repetitions; each has a warm-up.
    """
    decode = known.decode.tps.median if known is not None else promise.decode_tps
    if not decode:
        return None
    read = known.prefill[-1].tps.median if known is not None and known.prefill else promise.prefill_tps
    reading = read or decode * PREFILL_GAIN
    passes = work.reps + rounds
    prompts = passes * (sum(work.prompt_tokens) + work.context) / reading
    answers = (work.reps * work.tokens + rounds * min(WARM_UP_TOKENS, work.tokens)) / decode
    return prompts + answers + rounds * (START_S + artifact.total_bytes / LOAD_BYTES_PER_S)


def run_seconds(
    work: Workload, measured: Sequence[tuple[Artifact, Promise, Benchmark | None]], rounds: int
) -> float | None:
    """How long all of them take together; None where that is not known of one."""
    each = [expected_seconds(work, artifact, promise, known, rounds) for artifact, promise, known in measured]
    return sum(s for s in each if s is not None) if None not in each else None
