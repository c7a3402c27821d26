"""Jobs in words: how one stands, for a line of a list or the foot of a screen."""

from __future__ import annotations

from edgeq.jobs.job import LIVE, Look

GONE = "its process ended without a word: killed, or the machine ran out of memory or restarted"


def now(seen: Look) -> str:
    """What it is at, or how it ended."""
    if seen.failure is not None:
        place = f" ({seen.failure.where})" if seen.failure.where else ""
        return f"{seen.failure.what}{place}"
    if seen.state == "interrupted":
        return GONE
    if seen.state == "done" and isinstance(seen.result, dict):
        made = seen.result.get("checkpoint") or seen.result.get("artifact")
        return str(made or "")
    return seen.event.what if seen.event is not None and seen.state in LIVE else ""


def done(seen: Look) -> str:
    """`42%`; empty where that can't be told."""
    return "" if seen.share is None else f"{min(1.0, seen.share):.0%}"


def worked(seen: Look) -> str:
    """`3:20`: the time it worked, pauses left out."""
    return clock(seen.event.active_s) if seen.event is not None else ""


def left(seen: Look) -> str:
    """`0:45`: the time it needs yet, where that can be told."""
    return "" if seen.remaining_s is None or seen.state not in LIVE else clock(seen.remaining_s)


def clock(seconds: float) -> str:
    """`0:07`, `12:40`, `3:05:00`."""
    minutes, s = divmod(round(seconds), 60)
    return f"{minutes}:{s:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{s:02}"
