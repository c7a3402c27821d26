"""The process that `edgeq bench` measures: it does what an application does, and nothing else.

`python -m edgeq.measure.bench_worker REQUEST` with a JSON object of `path`, `prompt_tokens`, `tokens`, `context`,
`reps`, `options`; prints JSON lines: progress, then the result (or an error). Imports only what an application would,
so that its peak memory and its start are an application's.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

WARM_UP_TOKENS = 16
TRIES = 8


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
    done, total = 0, (len(lengths) + 1) * (reps + 1)
    prefills: dict[str, list[tuple[float, float]]] = {str(length): [] for length in lengths}
    decodes: list[float] = []
    for rep in range(reps + 1):
        for length in lengths:
            stats = answer(session, length, vocab_size, 1, rep)
            if rep:
                prefills[str(length)].append((stats.prefill_s, stats.ttft_s))
            done += 1
            emit({"done": done, "total": total, "what": f"prefill {length}"})
        seconds = decode(session, request["context"], vocab_size, tokens if rep else min(WARM_UP_TOKENS, tokens), rep)
        if rep:
            decodes.append(seconds)
        done += 1
        emit({"done": done, "total": total, "what": f"decode {tokens}"})
    return {"prefill": prefills, "decode": decodes}


def decode(session: Any, context: int, vocab_size: int, tokens: int, rep: int) -> float:
    """Seconds a new token takes, after the first one. A model that ends its answer early is asked something else."""
    spent, made = 0.0, 0
    for attempt in range(TRIES):
        stats = answer(session, context, vocab_size, tokens - made + 1, rep + 97 * attempt)
        spent, made = spent + stats.decode_s, made + stats.new_tokens - 1
        if made >= tokens:
            break
    return spent / max(1, made)


def answer(session: Any, length: int, vocab_size: int, new: int, seed: int) -> Any:
    """One greedy answer to a fresh prompt of `length` tokens; the session's statistics of it."""
    session.reset()
    for _ in session.stream(prompt(length, vocab_size, seed), max_tokens=new, temperature=0.0):
        pass
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
