"""A measurement in words: what it says of the promise, what can be done where it is slower, how old it is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from edgeq.amounts import amount
from edgeq.artifact import Artifact
from edgeq.benchmark import Benchmark
from edgeq.measure.bench import Workload, ratio
from edgeq.measure.compare import Comparison, Side
from edgeq.measure.live import Now

KEPT = 0.9  # of what was promised: as promised
SLOW = 0.8  # of what was promised: there is something to look for
NEAR = 0.9  # of the fastest's speed: as fast, where the runs differ
READING_TPS = 6.0  # 250 words a minute, about 1.4 tokens a word


def verdict(found: Benchmark) -> str:
    """`It writes 43.1 tokens/s, as promised (45.0); 7 times reading pace.`"""
    speed = found.decode.tps.median
    share = ratio(speed, found.promise.decode_tps)
    said = ""
    if share is not None:
        how = "slower than" if share < KEPT else "faster than" if share > 1 / KEPT else "as"
        said = f", {how} promised ({found.promise.decode_tps:.1f})"
    return f"It writes {speed:.1f} tokens/s{said}; {_beside_reading(speed)}."


def _beside_reading(speed: float) -> str:
    times = speed / READING_TPS
    if times < 0.8:
        return "slower than people read"
    return "about reading pace" if times < 1.5 else f"{times:.0f} times reading pace"


def ceiling_line(found: Benchmark) -> str:
    """How near the speed comes to what the memory allows; empty where that is not known."""
    share = ratio(found.decode.tps.median, found.promise.ceiling_tps)
    if share is None:
        return ""
    return f"{share:.0%} of the ceiling: the memory here allows {found.promise.ceiling_tps:.1f} tokens/s at most."


def advice(found: Benchmark) -> tuple[str, ...]:
    """What to try where it is much slower than promised; empty where it is not."""
    share = ratio(found.decode.tps.median, found.promise.decode_tps)
    if share is None or share >= SLOW:
        return ()
    tries = []
    if found.warnings:
        tries.append("Measure again while nothing else runs.")
    tries.append(f"Try other threads: edgeq bench {found.artifact} --threads auto")
    if found.promise.basis.startswith("prior"):
        tries.append("The promise was a guess from other machines; the next plan goes by this measurement.")
    return tuple(tries)


def main_side(comparison: Comparison) -> Side:
    """Whose figures come first: the fastest of those that took turns; of those measured apart the latest."""
    if comparison.rounds:
        return comparison.fastest
    return max(comparison.sides, key=lambda side: side.benchmark.date)


def versus(comparison: Comparison, names: list[str]) -> str:
    """Which is the fastest, in a sentence, and how sure that is."""
    best = comparison.fastest
    at = comparison.sides.index(best)
    rivals = [i for i, side in enumerate(comparison.sides) if i != at and not _clear(best, side)]
    if not rivals:
        times = f": {best.decode.value:.2f} times {names[0]}'s speed" if at else ""
        return f"{names[at]} writes fastest{times}."
    near = _and([names[i] for i in rivals])
    if all(comparison.sides[i].decode.value > NEAR * best.decode.value for i in rivals):
        return f"{names[at]} and {near} write equally fast, as far as this can tell."
    return f"{names[at]} seems faster than {near}, but the runs differ: measure again while nothing else runs."


def _clear(best: Side, other: Side) -> bool:
    """The two ranges of their ratios to the first do not meet."""
    return best.decode.low > other.decode.high


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def ago(date: str, now: datetime | None = None) -> str:
    """`just now`, `5 minutes ago`, `2 days ago` of an ISO date; the date itself where it can't be read."""
    try:
        seconds = ((now or datetime.now(UTC)) - datetime.fromisoformat(date)).total_seconds()
    except (ValueError, TypeError):
        return f"on {date}"
    for unit, each in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= each:
            count = int(seconds // each)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def work_rows(work: Workload, count: int, seconds: float | None) -> list[tuple[str, str]]:
    """What will be measured: rows of a name and what is said of it.

    Args:
        count: of artifacts.
        seconds: that it takes, None where nobody knows.
    """
    lengths = [str(n) for n in work.prompt_tokens]
    rows = [
        ("decode", f"{work.tokens} tokens after a prompt of {work.context}: how fast it writes"),
        ("prefill", f"prompts of {_and(lengths)} tokens: how fast it reads"),
        ("besides", "the wait for the first word, the start, the peak memory"),
        ("repeated", f"{work.reps} times{', in turns, so that what disturbs one disturbs all' if count > 1 else ''}"),
    ]
    if seconds is not None:
        rows.append(("takes", f"about {_span(seconds)}"))
    return rows


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{max(5, round(seconds / 5) * 5)} seconds"
    return f"{round(seconds / 60)} minutes"


def so_far_rows(now: Now, names: Sequence[str]) -> list[tuple[str, str]]:
    """What came out so far: a row a figure, with each artifact's median."""
    rows: dict[str, list[str]] = {}
    for one in now.so_far:
        name = f"{names[one.artifact]} " if len(names) > 1 and one.artifact < len(names) else ""
        rows.setdefault(f"{one.phase} {one.tokens}", []).append(f"{name}{one.tokens_per_s:,.1f}")
    return [(name, f"{'   '.join(speeds)} tokens/s") for name, speeds in rows.items()]


def choice_words(artifact: Artifact | None, known: Benchmark | None, *, able: bool = True) -> str:
    """`onnxruntime, 108 MB, 43.1 tokens/s 2 days ago`: an artifact in a list."""
    parts = [] if artifact is None else [artifact.runtime, amount(artifact.total_bytes)]
    if known is not None:
        parts.append(f"{known.decode.tps.median:.1f} tokens/s {ago(known.date)}")
    return ", ".join(parts if able else ["can't be measured here", *parts])
