"""Numbers in words: sizes in GB (10^9 bytes), as memory cards and files are sold."""

from __future__ import annotations


def gb(n: float) -> str:
    """`4.35 GB`, `12.3 GB`, `840 MB`."""
    if n >= 1e11:
        return f"{n / 1e9:,.0f} GB"
    if n >= 1e10:
        return f"{n / 1e9:.1f} GB"
    if n >= 1e9:
        return f"{n / 1e9:.2f} GB"
    return f"{n / 1e6:.0f} MB"


def tokens(n: int) -> str:
    return f"{n:,} token" + ("" if n == 1 else "s")


def speed(tps: float | None) -> str:
    """`28 tok/s`, `2.4 tok/s`, `unknown`."""
    if tps is None:
        return "unknown"
    return f"{tps:,.0f} tok/s" if tps >= 20 else f"{tps:.1f} tok/s"


def duration(hours: float) -> str:
    seconds = hours * 3600
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:,.0f} days"
