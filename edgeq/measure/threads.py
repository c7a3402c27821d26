"""How many threads decode fastest: a few numbers tried shortly, each in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgeq.artifact import Artifact
from edgeq.benchmark import Benchmark
from edgeq.device.spec import Device
from edgeq.measure.bench import Workload, bench
from edgeq.registry import Progress

SHORT = Workload(prompt_tokens=(32,), tokens=32, context=32, reps=2)


def counts(device: Device) -> tuple[int, ...]:
    """Numbers worth trying: powers of two, the cores, three quarters of them, and all hardware threads."""
    cores, threads = device.cpu.cores, device.cpu.threads
    powers = {1 << i for i in range(threads.bit_length())}
    wanted = {*powers, cores, max(1, cores * 3 // 4), threads}
    return tuple(sorted(n for n in wanted if n <= threads))


def try_threads(
    artifact: Artifact,
    device: Device,
    *,
    options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> list[Benchmark]:
    """A short benchmark with each number of threads; `options` are the runtime's.

    Raises:
        EdgeqError: as `bench` does.
    """
    found, tries = [], counts(device)
    for i, count in enumerate(tries):
        if progress is not None:
            progress(i, len(tries), f"{count} threads")
        work = Workload(SHORT.prompt_tokens, SHORT.tokens, SHORT.context, SHORT.reps, count)
        found.append(bench(artifact, device, workload=work, options=options))
    return found


def fastest_threads(tried: Sequence[Benchmark]) -> int:
    """The number that decoded fastest; of almost equal ones (2 %) the lowest, which leaves more of the machine."""
    best = max(b.decode.tps.median for b in tried)
    return min(b.threads for b in tried if b.decode.tps.median >= 0.98 * best)
