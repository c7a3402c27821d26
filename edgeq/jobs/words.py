"""Jobs in words: how one stands, for a line of a list or the foot of a screen."""

from __future__ import annotations

from datetime import datetime

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


def ended(seen: Look, again: str) -> tuple[str, str]:
    """Why a job is not at work any more though it did not do its work, and the way out.

    Args:
        again: how to begin it once more, which is the way out where no failure has a hint of its own.
    """
    if seen.failure is not None:
        return now(seen), seen.failure.hint or ""
    return "Cancelled" if seen.state == "cancelled" else f"It stopped: {now(seen)}", again


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


def ago(then: datetime, now: datetime) -> str:
    """`just now`, `5 minutes ago`, `2 hours ago`, `yesterday`, `3 days ago`, and from a month on the date."""
    minutes = int((now - then).total_seconds() // 60)
    if minutes < 2:
        return "just now"
    if minutes < 120:
        return f"{minutes} minutes ago" if minutes < 60 else "an hour ago"
    hours = minutes // 60
    if hours < 24:
        return f"{hours} hours ago"
    days = hours // 24
    if days < 31:
        return "yesterday" if days == 1 else f"{days} days ago"
    return f"on {then:%Y-%m-%d}"


def going_on(seen: Look) -> str:
    """`runs now: 42%, 0:45 left`, `paused at 42%`; empty for one that is not at work."""
    if seen.state not in LIVE:
        return ""
    if seen.state == "paused":
        return f"paused at {done(seen)}" if done(seen) else "paused"
    until = f"{left(seen)} left" if left(seen) else ""
    parts = ", ".join(part for part in (done(seen), until) if part)
    return f"runs now: {parts}" if parts else "runs now"
