"""The process that `edgeq bench` measures: it does what an application does, and nothing else.

`python -m edgeq.measure.bench_worker REQUEST` with a JSON object of `path`, `prompt_tokens`, `tokens`, `context`,
`reps`, `options`; prints JSON lines: progress, then the result (or an error). Imports only what an application would,
so that its peak memory and its start are an application's.

A line of progress has `done` and `total` pieces of work, `what` it is, its `phase` (`prefill`, `decode`) and `tokens`,
`rep` of `reps` (0: the warm-up), `tokens_per_s`, `whole` (a piece has ended; else one is under way), and `left_s`, the
seconds that are left, as soon as each kind of piece was done once.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WARM_UP_TOKENS = 16
TRIES = 8
REPORT_S = 0.2  # between two reports of one decoding: each takes about 50 us, so 0.03 % of its time
Live = Callable[[float], None]  # tokens/s of the last moment


def main() -> None:
    """Measure, then print the result."""
    request = json.loads(sys.argv[1])
    baseline = resident_bytes()
    from edgeq.errors import EdgeqError

    try:
        result = measure(request, baseline)
    except EdgeqError as error:
        emit({"error": error.what, "where": error.where, "hint": error.hint})
        return
    emit({"result": result, "cpu_s": time.process_time()})


def measure(request: dict[str, Any], baseline: int) -> dict[str, Any]:
    """Load the artifact, prefill and decode it; all times in seconds, memory in bytes."""
    start = time.perf_counter()
    import edgeq
    from edgeq.artifact import read_artifact
    from edgeq.registry import runtime

    artifact = read_artifact(request["path"])
    runtime(artifact.runtime)
    imported = time.perf_counter()
    session = edgeq.load(request["path"], **request["options"])
    loaded = time.perf_counter()
    result: dict[str, Any] = {
        "import_s": imported - start,
        "load_s": loaded - imported,
        "baseline_bytes": baseline,
        "loaded_bytes": resident_bytes(),
        "threads": int(getattr(session, "threads", 0)),
    }
    try:
        result |= run(session, int(artifact.model["vocab_size"]), request)
    finally:
        session.close()
    return result | {"peak_bytes": peak_bytes()}


def run(session: Any, vocab_size: int, request: dict[str, Any]) -> dict[str, Any]:
    """Every prompt length and the decoding, `reps` times each, after one warm-up of each."""
    lengths, tokens, reps = request["prompt_tokens"], request["tokens"], request["reps"]
    course = Course([*(("prefill", length) for length in lengths), ("decode", tokens)], reps)
    prefills: dict[str, list[tuple[float, float]]] = {str(length): [] for length in lengths}
    decodes: list[float] = []
    for rep in range(reps + 1):
        for length in lengths:
            course.begins()
            stats = answer(session, length, vocab_size, 1, rep)
            if rep:
                prefills[str(length)].append((stats.prefill_s, stats.ttft_s))
            course.ended(length / stats.prefill_s if stats.prefill_s > 0 else 0.0)
        course.begins()
        asked = tokens if rep else min(WARM_UP_TOKENS, tokens)
        seconds = decode(session, request["context"], vocab_size, asked, rep, course.live)
        if rep:
            decodes.append(seconds)
        course.ended(1 / seconds if seconds > 0 else 0.0, share=asked / tokens)
    return {"prefill": prefills, "decode": decodes}


class Course:
    """The pieces of work in their order, and what is said of them.

    Args:
        kinds: (phase, tokens) of each piece of a repetition.
    """

    def __init__(self, kinds: list[tuple[str, int]], reps: int) -> None:
        self._kinds, self._reps, self._done = kinds, reps, 0
        self._cost: dict[tuple[str, int], float] = {}  # seconds that a piece of the kind takes
        self._began = 0.0

    @property
    def _kind(self) -> tuple[str, int]:
        return self._kinds[self._done % len(self._kinds)]

    def begins(self) -> None:
        self._began = time.perf_counter()

    def live(self, speed: float) -> None:
        """A piece is under way, at so many tokens/s."""
        emit(self._event(self._kind, self._done, speed, time.perf_counter() - self._began) | {"whole": False})

    def ended(self, speed: float, share: float = 1.0) -> None:
        """The piece is done, or that share of what one has in a repetition."""
        kind = self._kind
        self._cost[kind] = (time.perf_counter() - self._began) / share
        event = self._event(kind, self._done + 1, speed, 0.0) | {"whole": True}
        self._done += 1
        emit(event)

    def _event(self, kind: tuple[str, int], done: int, speed: float, spent: float) -> dict[str, Any]:
        each = len(self._kinds)
        total, rep = each * (self._reps + 1), self._done // each
        event = {"done": done, "total": total, "what": f"{kind[0]} {kind[1]}", "phase": kind[0], "tokens": kind[1]}
        event |= {"rep": rep, "reps": self._reps, "tokens_per_s": round(speed, 2)}
        if len(self._cost) == each:
            left = sum(self._cost[self._kinds[i % each]] for i in range(done, total))
            event["left_s"] = round(max(0.0, left - spent), 1)
        return event


def decode(session: Any, context: int, vocab_size: int, tokens: int, rep: int, live: Live = lambda _: None) -> float:
    """Seconds a new token takes, after the first one. A model that ends its answer early is asked something else."""
    spent, made = 0.0, 0
    for attempt in range(TRIES):
        stats = answer(session, context, vocab_size, tokens - made + 1, rep + 97 * attempt, live)
        spent, made = spent + stats.decode_s, made + stats.new_tokens - 1
        if made >= tokens:
            break
    return spent / max(1, made)


def answer(session: Any, length: int, vocab_size: int, new: int, seed: int, live: Live | None = None) -> Any:
    """One greedy answer to a fresh prompt of `length` tokens; the session's statistics of it.

    Args:
        live: told the speed now and then. It is called between two tokens, so it has to be quick.
    """
    session.reset()
    said_s, said_tokens, due = 0.0, 1, 0.0
    for _ in session.stream(prompt(length, vocab_size, seed), max_tokens=new, temperature=0.0):
        if live is None or (now := time.perf_counter()) < due:
            continue
        stats = session.stats
        if due and stats.decode_s > said_s:
            live((stats.new_tokens - said_tokens) / (stats.decode_s - said_s))
        said_s, said_tokens, due = stats.decode_s, stats.new_tokens, now + REPORT_S
    return session.stats


def prompt(length: int, vocab_size: int, seed: int) -> list[int]:
    """Token ids spread over the vocabulary (Knuth's multiplicative hash): speed does not depend on what they say."""
    return [(i * 2_654_435_761 + (seed + 1) * 40_503) % vocab_size for i in range(length)]


def emit(event: dict[str, Any]) -> None:
    print(json.dumps(event), flush=True)


def resident_bytes() -> int:
    """Resident memory now, 0 where only the parent can tell."""
    return _proc_status("VmRSS:") or 0


def peak_bytes() -> int:
    """The highest resident memory so far: VmHWM on Linux, ru_maxrss on macOS, else 0 and the parent's samples stand.

    Not ru_maxrss on Linux: it keeps the parent's peak across exec (getrusage(2), fs/exec.c).
    """
    peak = _proc_status("VmHWM:")
    if peak is None and sys.platform == "darwin":
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak or 0


def _proc_status(field: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field)), None)


if __name__ == "__main__":
    main()
